//! What answers begin with, in tokens.

/// The tokens that an answer can begin with, and those that are the same in every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What every answer begins with; said for the model.
    pub(super) lead: Vec<u32>,
    pub(super) box_start: u32,
    pub(super) absent: Vec<u32>,
    /// Further tokens that name a target, and that say that there is none.
    pub(super) alike: [Vec<u32>; 2],
    /// The token between boxes that are counted up to the target, where the model was taught to count.
    pub(super) count_on: Option<u32>,
    /// One target of an answer, `None` where a number stands; empty where the tokenizer cuts targets differently.
    pub(super) frame: Vec<Option<u32>>,
}

impl Opening {
    /// What every answer begins with, so that it is said for the model behind the query; mostly nothing.
    pub fn lead(&self) -> &[u32] {
        &self.lead
    }

    /// Of a step's probabilities: that a target is named, and that there is none, each with the likeliest token for it.
    pub fn chances(&self, p: &[f32]) -> [(f32, u32); 2] {
        let of = |token: u32| p.get(token as usize).copied().unwrap_or(0.0);
        let sum = |first: u32, alike: &[u32]| {
            alike.iter().fold((of(first), first), |(sum, best), token| {
                (sum + of(*token), if of(*token) > of(best) { *token } else { best })
            })
        };
        let [targets, none] = &self.alike;
        [sum(self.box_start, targets), sum(self.absent[0], none)]
    }

    /// The token that begins a box, or in JSON what stands before the first.
    pub fn box_start(&self) -> u32 {
        self.box_start
    }

    /// The tokens of the absent answer, at least one.
    pub fn absent(&self) -> &[u32] {
        &self.absent
    }

    /// The token between boxes that are counted up to the target, where the model was taught to count.
    pub fn count_on(&self) -> Option<u32> {
        self.count_on
    }

    /// The tokens of one target of an answer, `None` where a number stands; empty where the tokenizer cuts targets
    /// differently.
    pub fn frame(&self) -> &[Option<u32>] {
        &self.frame
    }

    /// What of `answer` stands behind the boxes that are only counted; all of it where none are.
    pub fn uncounted<'a>(&self, mut answer: &'a [u32]) -> &'a [u32] {
        let Some(count_on) = self.count_on else { return answer };
        while !self.frame.is_empty() && answer.get(self.frame.len()) == Some(&count_on) {
            answer = &answer[self.frame.len() + 1..];
        }
        answer
    }

    /// What is likely to follow `answer`: the rest of the absent answer once that has begun, else what stands before
    /// the next number, be it of this target or of another one.
    ///
    /// A guess, to be checked: it halves the passes of a box, for every second token of it is punctuation.
    pub fn likely(&self, answer: &[u32]) -> Vec<u32> {
        match self.absent.strip_prefix(answer) {
            Some(rest) if !answer.is_empty() => rest.to_vec(),
            _ if self.frame.is_empty() => Vec::new(),
            _ => {
                let said = self.uncounted(answer).len();
                let ahead = self.frame.iter().cycle().skip(said % self.frame.len());
                ahead.take(self.frame.len()).map_while(|token| *token).collect()
            }
        }
    }
}
