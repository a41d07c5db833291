//! RefCOCO, RefCOCO+ and RefCOCOg: pickled lists of refs.
//!
//! A ref is a dictionary; read are `ref_id`, `ann_id`, `image_id`, `split` and `sentences`, each of which has `sent`
//! (cleaned) and `raw`. Its `file_name` is not read: it names a crop of the picture that no one distributes.
//!
//! Source: the files that accompany "Modeling Context in Referring Expressions", arXiv 1608.00272.

use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::json::read_bounded;
use super::record::{Files, SourceExpression, SourceSplit};
use super::refs::Ref;
use crate::pickle::{Fields, Limits, Pickle, ValueId};

/// Largest file that is accepted; the largest of the three sets has some tens of millions of bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Reads every ref.
///
/// # Errors
/// [`ReadErrorKind::Pickle`] with the instruction at fault, [`ReadErrorKind::Value`] naming the ref.
pub(super) fn read(files: &Files, damage: &mut Damage<'_>) -> Result<Vec<Ref>, ReadError> {
    let path = &files.records;
    let bytes = read_bounded(path, MAX_BYTES)?;
    let pickle =
        Pickle::read(&bytes, Limits::default()).map_err(|e| ReadError::new(ReadErrorKind::Pickle, path).because(e))?;
    let value = |reason: String| ReadError::new(ReadErrorKind::Value, path).because(reason);
    let refs = pickle.items(pickle.root()).ok_or_else(|| value("a list of refs is expected".to_owned()))?;
    let mut reader = Reader { pickle: &pickle, sentences: pickle.len(), text_bytes: 4 * bytes.len() };
    let mut out = Vec::new();
    for (index, &id) in refs.iter().enumerate() {
        let name = || ref_id(&pickle, id).map_or_else(|| format!("entry {index}"), Ref::name);
        out.extend(damage.pass(reader.reference(id).map_err(|reason| value(reason).of(name())))?);
    }
    Ok(out)
}

fn ref_id(pickle: &Pickle<'_>, id: ValueId) -> Option<u64> {
    pickle.int(pickle.fields(id)?.get("ref_id")?)?.try_into().ok()
}

/// Copies refs out of a pickle. What the memo makes small there, one sentence in a million refs, would be large here:
/// the two budgets, far above what a real file needs, refuse that.
struct Reader<'p, 'a> {
    pickle: &'p Pickle<'a>,
    sentences: usize,
    text_bytes: usize,
}

impl Reader<'_, '_> {
    fn reference(&mut self, id: ValueId) -> Result<Ref, String> {
        let fields = self.pickle.fields(id).ok_or("a dictionary is expected")?;
        let split = self.get(fields, "split")?;
        let split = self.pickle.text(split).ok_or("`split` is not text")?;
        let split = SourceSplit::from_word(&split).ok_or_else(|| format!("there is no split `{split}`"))?;
        let sentences = self.get(fields, "sentences")?;
        let sentences = self.pickle.items(sentences).ok_or("`sentences` is not a list")?;
        if sentences.is_empty() {
            return Err("`sentences` is empty".to_owned());
        }
        self.sentences = self.sentences.checked_sub(sentences.len()).ok_or("sentences are repeated without end")?;
        Ok(Ref {
            id: self.id(fields, "ref_id")?,
            image: self.id(fields, "image_id")?,
            annotations: vec![self.id(fields, "ann_id")?],
            split,
            expressions: sentences.iter().map(|s| self.expression(*s)).collect::<Result<_, _>>()?,
        })
    }

    fn expression(&mut self, id: ValueId) -> Result<SourceExpression, String> {
        let fields = self.pickle.fields(id).ok_or("a sentence is not a dictionary")?;
        let sent = self.get(fields, "sent")?;
        let sent = self.pickle.text(sent).ok_or("`sent` is not text")?;
        let raw = fields.get("raw").and_then(|raw| self.pickle.text(raw));
        let text = cleaned(&sent, raw.as_deref()).ok_or("a sentence is empty")?;
        self.text_bytes = self.text_bytes.checked_sub(text.len()).ok_or("text is repeated without end")?;
        Ok(SourceExpression { text: text.to_owned(), sentence: false })
    }

    fn id(&self, fields: Fields<'_, '_>, name: &str) -> Result<u64, String> {
        let number = self.get(fields, name)?;
        let number = self.pickle.int(number).ok_or_else(|| format!("`{name}` is not a number"))?;
        u64::try_from(number).map_err(|_| format!("`{name}` is {number}: negative"))
    }

    fn get(&self, fields: Fields<'_, '_>, name: &str) -> Result<ValueId, String> {
        fields.get(name).ok_or_else(|| format!("`{name}` is missing"))
    }
}

/// The cleaned words of an expression, or what was written where cleaning left nothing; `None` where that is blank.
pub(super) fn cleaned<'a>(sent: &'a str, raw: Option<&'a str>) -> Option<&'a str> {
    [Some(sent), raw].into_iter().flatten().map(str::trim).find(|text| !text.is_empty())
}
