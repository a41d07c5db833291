//! The report as one page: no script, nothing that is loaded from elsewhere, readable on a phone and in the dark.

mod page;
mod plot;

use super::metrics::Metrics;
use super::record::Record;
use super::report::{Report, Row, VariantReport};
use super::runner::Shown;
use super::source::{Picture, Sample};
use super::{Exhibit, gallery};
use crate::dataset::encode_jpeg;
use crate::frame::Image;
pub(crate) use page::{Page, base64};

/// Of the pictures in the page.
const JPEG_QUALITY: u8 = 78;

/// An answer with its pictures.
#[derive(Debug, Clone)]
pub struct Card {
    record: Record,
    variant: usize,
    success: bool,
    /// The model's words.
    answer: String,
    /// JPEG files: truth, answer.
    pictures: [Vec<u8>; 2],
}

impl Card {
    /// The card of an exhibit: its record, answered again so that it can be drawn; `None` where a picture cannot be encoded
    /// as JPEG, which takes sides of up to 65,535 pixels.
    pub fn new(
        (exhibit, record): (Exhibit, &Record),
        variant: usize,
        (picture, sample): (&Picture, &Sample),
        shown: &Shown,
    ) -> Option<Self> {
        let [truth, answer] = gallery::pictures(picture, sample, shown);
        Some(Self {
            record: record.clone(),
            variant,
            success: exhibit.success,
            answer: shown.grounding.answer.clone(),
            pictures: [jpeg(&truth)?, jpeg(&answer)?],
        })
    }
}

/// The whole page: figures and plots of every variant, and `cards`.
pub fn render(report: &Report, cards: &[Card]) -> String {
    let mut page = begin(&format!("sam4mllm eval: {}", report.bundle.name));
    head(&mut page, report);
    for (i, variant) in report.variants.iter().enumerate() {
        // The last is what the ones before lead up to.
        page.raw(if i + 1 == report.variants.len() { "<details open>" } else { "<details>" });
        page.element("summary", &[], &variant.name);
        details(&mut page, variant);
        page.raw("</details>\n");
    }
    for (success, title) in [(true, "Successes"), (false, "Failures")] {
        let cards: Vec<&Card> = cards.iter().filter(|c| c.success == success).collect();
        if !cards.is_empty() {
            page.element("h2", &[], title).raw("\n<div class=\"grid\">\n");
            cards.iter().for_each(|c| card(&mut page, c));
            page.raw("</div>\n");
        }
    }
    page.raw("</body></html>\n");
    page.finish()
}

/// A page of that title, up to its body.
fn begin(title: &str) -> Page {
    let mut page = Page::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // Whatever slipped through: no script runs and nothing is fetched.
    page.raw("<meta http-equiv=\"Content-Security-Policy\" ");
    page.raw("content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n");
    page.element("title", &[], title);
    page.raw("<style>\n").raw(include_str!("style.css")).raw("</style></head><body>\n");
    page
}

/// A page of that title, under it as a headline, with what `body` writes.
pub(crate) fn document(title: &str, body: impl FnOnce(&mut Page)) -> String {
    let mut page = begin(title);
    page.element("h1", &[], title).raw("\n");
    body(&mut page);
    page.raw("</body></html>\n");
    page.finish()
}

fn head(page: &mut Page, report: &Report) {
    let b = &report.bundle;
    page.element("h1", &[], format!("{} {}", b.name, b.version)).raw("\n");
    page.element("p", &[], format!("bundle {}, {} expressions", b.fingerprint, report.samples)).raw("\n");
    let facts = report.source.as_object().into_iter().flatten();
    let facts: Vec<String> =
        facts.map(|(k, v)| format!("{k} {}", v.as_str().map_or(v.to_string(), str::to_owned))).collect();
    page.element("p", &[], facts.join(", ")).raw("\n");
    let rows = report.variants.iter().map(|v| Row { name: v.name.clone(), metrics: v.metrics });
    table(page, "strategy", &rows.collect::<Vec<_>>());
}

/// Names of the columns of [`cells`].
pub const COLUMNS: [&str; 12] =
    ["n", "gIoU", "cIoU", "target gIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "N-acc", "T-acc", "no target"];

/// Figures as text, by [`COLUMNS`]; those that a set of samples cannot have are left empty.
pub fn cells(m: &Metrics) -> Vec<String> {
    let with = |v: f64, there: bool| if there { format!("{v:.3}") } else { String::new() };
    let (targets, none) = (m.with_target > 0, m.samples > m.with_target);
    let rates = [m.ciou, m.target_giou, m.p50, m.p60, m.p70, m.p80, m.p90].map(|v| with(v, targets));
    let mut cells = vec![m.samples.to_string(), with(m.giou, m.samples > 0)];
    cells.extend(rates);
    cells.extend([with(m.n_acc, none), with(m.t_acc, targets), (m.samples - m.with_target).to_string()]);
    cells
}

fn table(page: &mut Page, corner: &str, rows: &[Row]) {
    page.raw("<div class=\"wide\"><table><thead><tr>").element("th", &[("scope", &"row")], corner);
    for column in COLUMNS {
        page.element("th", &[], column);
    }
    page.raw("</tr></thead><tbody>\n");
    rows.iter().for_each(|row| page.row(&row.name, &cells(&row.metrics)));
    page.raw("</tbody></table></div>\n");
}

fn details(page: &mut Page, v: &VariantReport) {
    let c = &v.calibration.confidence;
    let auroc = c.auroc.map_or("not defined".to_owned(), |a| format!("{a:.3}"));
    page.element(
        "p",
        &[],
        format!(
            "{:.2} passes a grounding ({:.1} one by one), {} malformed answers; of {} instances {:.1} % are right (IoU of at least 0.5): \
             ECE {:.3}, AUROC {auroc}",
            v.passes_per_grounding,
            v.one_by_one_per_grounding,
            v.malformed,
            c.count,
            100.0 * c.accuracy,
            c.ece
        ),
    );
    page.raw("<div class=\"grid\">\n");
    figure(page, "Reliability", |page| plot::reliability(page, c));
    figure(page, "IoU with a target", |page| plot::histogram(page, &v.iou_histogram));
    let parts = [
        ("gIoU by type", &v.by_type),
        ("gIoU by size", &v.by_size),
        ("gIoU by occlusion", &v.by_occlusion),
        ("gIoU by filling of the box", &v.by_filling),
    ];
    for (title, rows) in parts.iter().filter(|(_, rows)| !rows.is_empty()) {
        figure(page, title, |page| plot::bars(page, rows));
    }
    page.raw("</div>\n");
    let near = (v.near_misses.samples > 0).then(|| Row { name: "near misses".to_owned(), metrics: v.near_misses });
    let all = parts.iter().flat_map(|(_, rows)| rows.iter().cloned()).chain(near);
    table(page, "part", &all.collect::<Vec<_>>());
}

fn figure(page: &mut Page, title: &str, plot: impl Fn(&mut Page)) {
    page.raw("<section class=\"card\">").element("h3", &[], title);
    plot(page);
    page.raw("</section>\n");
}

fn card(page: &mut Page, card: &Card) {
    let Card { record, variant, answer, pictures, .. } = card;
    let given = &record.answers[*variant];
    page.raw("<section class=\"card\">").element("h3", &[], &record.expression);
    page.raw("<div class=\"pair\">");
    for (bytes, alt) in pictures.iter().zip(["truth", "answer"]) {
        let data = format!("data:image/jpeg;base64,{}", base64(bytes));
        page.open("img", &[("src", &data), ("alt", &alt), ("loading", &"lazy")]);
    }
    page.raw("</div>");
    let sureness = given.instances.iter().map(|i| format!("{:.2}", i.confidence)).collect::<Vec<_>>().join(", ");
    let facts = format!("{}; {}; IoU {:.3}; confidence {sureness}", record.id, record.kind, given.score.iou());
    page.element("p", &[], facts).element("p", &[], format!("said: {answer}"));
    page.raw("</section>\n");
}

fn jpeg(image: &Image) -> Option<Vec<u8>> {
    encode_jpeg(image.rgb(), image.size().width as usize, image.size().height as usize, JPEG_QUALITY)
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::super::report::tests::report;
    use super::*;

    const EVIL: &str = "</h3><script>alert(1)</script><img src=x onerror=\"alert(2)\">";

    /// A page whose every text from outside is hostile.
    fn page() -> String {
        let mut records: Vec<Record> = (0..6).map(|i| record(i, 0)).collect();
        for r in &mut records {
            (r.expression, r.kind, r.id) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
        }
        let mut report = report(&records);
        report.bundle.name = EVIL.to_owned();
        report.source = serde_json::json!({ EVIL: EVIL });
        let card = |success| Card {
            record: records[0].clone(),
            variant: 0,
            success,
            answer: EVIL.to_owned(),
            pictures: [vec![1, 2, 3], vec![4]],
        };
        render(&report, &[card(true), card(false)])
    }

    #[test]
    fn hostile_texts_stay_texts() {
        let page = page();
        assert!(!page.contains("<script") && !page.contains("<img src=x") && !page.contains("onerror=\""), "{page}");
        assert!(page.matches("&lt;script&gt;").count() >= 10);
        // Every element that is opened is closed: nothing of the hostile text took part in the structure.
        for name in ["section", "div", "table", "svg", "details", "h3", "p", "rect", "text"] {
            let opened = page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count();
            assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page();
        for outside in ["http:", "https:", "src=\"/", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("data:image/jpeg;base64,AQID") && page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("name=\"viewport\"") && page.contains("default-src 'none'"));
        assert_eq!(page, self::page(), "the same page twice");
    }

    #[test]
    fn figures_that_cannot_be_are_left_empty() {
        let m = Metrics { samples: 3, n_acc: 1.0, giou: 1.0, ..Metrics::default() };
        let cells = cells(&m);
        assert_eq!((cells.len(), &cells[..3]), (COLUMNS.len(), &["3".to_owned(), "1.000".into(), String::new()][..]));
        assert_eq!(&cells[9..], ["1.000", "", "3"]);
    }
}
