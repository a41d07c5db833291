//! Where a target is in its life: one state, and the events that move it. Nothing else does.
//!
//! A state has two halves that go on side by side, for masks go on while the language model thinks. The *phase* says
//! what stands behind the masks, the *look* what the language model is doing about the target. So the usual way is
//! pending → grounded → tracked → stale or lost, and a target is *re-grounding* while its look is not idle in any
//! phase but pending.
//!
//! In both tables a row is what is, a column what happens, a cell what is then: `=` for no change, `–` for what cannot
//! happen there. They are all there is: the tests read them and hold every state and event against [`State::after`].
//!
//! | phase    | ask | propose | answer | use | fail   | ground   | carry   | follow  | clear  | lose | miss  | retarget | pause  | resume  |
//! |----------|-----|---------|--------|-----|--------|----------|---------|---------|--------|------|-------|----------|--------|---------|
//! | Pending  | =   | =       | =      | =   | Failed | Grounded | Tracked | –       | Vacant | Lost | =     | =        | Paused | =       |
//! | Grounded | =   | =       | =      | =   | =      | =        | Tracked | Tracked | Vacant | Lost | Stale | Pending  | Paused | =       |
//! | Tracked  | =   | =       | =      | =   | =      | Grounded | =       | =       | Vacant | Lost | Stale | Pending  | Paused | =       |
//! | Stale    | =   | =       | =      | =   | =      | Grounded | Tracked | Tracked | Vacant | Lost | =     | Pending  | Paused | =       |
//! | Lost     | =   | =       | =      | =   | =      | Grounded | Tracked | –       | Vacant | =    | =     | Pending  | Paused | =       |
//! | Vacant   | =   | =       | =      | =   | Failed | Grounded | Tracked | –       | =      | Lost | =     | Pending  | Paused | =       |
//! | Failed   | =   | =       | =      | =   | =      | Grounded | Tracked | –       | Vacant | Lost | =     | Pending  | Paused | =       |
//! | Paused   | –   | –       | –      | –   | –      | –        | –       | –       | –      | –    | =     | =        | =      | Pending |
//!
//! | look     | ask   | propose  | answer   | use   | fail | ground | carry | follow | clear | lose | miss | retarget | pause | resume |
//! |----------|-------|----------|----------|-------|------|--------|-------|--------|-------|------|------|----------|-------|--------|
//! | Idle     | Asked | –        | –        | –     | =    | =      | =     | =      | =     | =    | =    | =        | =     | =      |
//! | Asked    | –     | Proposed | Answered | –     | Idle | =      | =     | =      | =     | =    | =    | Idle     | Idle  | =      |
//! | Proposed | –     | –        | Answered | Asked | Idle | =      | =     | =      | =     | =    | =    | Idle     | Idle  | =      |
//! | Answered | –     | –        | –        | Idle  | =    | =      | =     | =      | =     | =    | =    | Idle     | Idle  | =      |

/// What stands behind what is said of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not looked at yet: new, under a new command, or back from a pause.
    Pending,
    /// Masks were made on the very frame that the language model saw.
    Grounded,
    /// Masks were made on the newest frame by following earlier ones.
    Tracked,
    /// Masks of an earlier frame are repeated, for the newest could not be segmented.
    Stale,
    /// There were instances; none is followed any more, and the language model has not answered since.
    Lost,
    /// The language model has answered, and there is nothing to follow: absent, or unsure.
    Vacant,
    /// It cannot be answered.
    Failed,
    /// The client wants no work done on it.
    Paused,
}

/// What the language model is doing about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    /// Nothing.
    Idle,
    /// It is at it.
    Asked,
    /// It has named boxes, which still have to become masks, and is being asked about points.
    Proposed,
    /// It has answered; the answer still has to become masks.
    Answered,
}

/// Something that happens to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// The language model is given the target.
    Ask,
    /// It has named boxes, and goes on.
    Propose,
    /// It has answered.
    Answer,
    /// What it said last is put to use.
    Use,
    /// It failed, refuses, or is not there.
    Fail,
    /// A frame has masks that were made from its words.
    Ground,
    /// Masks from its words about an earlier frame were followed to this one.
    Carry,
    /// Masks were followed to a frame.
    Follow,
    /// There is nothing to follow: it named nothing, or nothing that SAM believes in.
    Clear,
    /// The last instance could not be followed.
    Lose,
    /// A frame could not be segmented.
    Miss,
    /// The client gives another command.
    Retarget,
    /// The client wants no more work done.
    Pause,
    /// It does again.
    Resume,
}

/// Where a target is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub phase: Phase,
    pub look: Look,
}

impl State {
    /// Of a target that nothing has happened to.
    pub(super) const NEW: Self = Self { phase: Phase::Pending, look: Look::Idle };

    /// Where `event` leads; `None` for what cannot happen here.
    pub(super) fn after(self, event: Event) -> Option<Self> {
        Some(Self { phase: self.phase.after(event)?, look: self.look.after(event)? })
    }
}

impl Phase {
    fn after(self, event: Event) -> Option<Self> {
        use Event as E;
        Some(match (self, event) {
            (Self::Paused, E::Resume) => Self::Pending,
            (Self::Paused, E::Miss | E::Retarget | E::Pause) => Self::Paused,
            (Self::Paused, _) => return None,
            (_, E::Ask | E::Propose | E::Answer | E::Use | E::Resume) => self,
            // Masks outlive a failed look; "absent" is about a moment, and does not stay true without word.
            (Self::Pending | Self::Vacant, E::Fail) => Self::Failed,
            (_, E::Fail) => self,
            (_, E::Ground) => Self::Grounded,
            (_, E::Carry) => Self::Tracked,
            (Self::Grounded | Self::Tracked | Self::Stale, E::Follow) => Self::Tracked,
            (Self::Pending | Self::Lost | Self::Vacant | Self::Failed, E::Follow) => return None,
            (_, E::Clear) => Self::Vacant,
            (_, E::Lose) => Self::Lost,
            (Self::Grounded | Self::Tracked, E::Miss) => Self::Stale,
            (_, E::Miss) => self,
            (_, E::Retarget) => Self::Pending,
            (_, E::Pause) => Self::Paused,
        })
    }

    /// Whether there are instances that are followed.
    pub(super) fn follows(self) -> bool {
        matches!(self, Self::Grounded | Self::Tracked | Self::Stale)
    }
}

impl Look {
    fn after(self, event: Event) -> Option<Self> {
        use Event as E;
        Some(match (self, event) {
            (Self::Idle, E::Ask) => Self::Asked,
            (Self::Asked, E::Propose) => Self::Proposed,
            (Self::Asked | Self::Proposed, E::Answer) => Self::Answered,
            (Self::Proposed, E::Use) => Self::Asked,
            (Self::Answered, E::Use) => Self::Idle,
            (_, E::Ask | E::Propose | E::Answer | E::Use) => return None,
            (Self::Asked | Self::Proposed, E::Fail) => Self::Idle,
            // What the model is still at is about what was asked before.
            (_, E::Retarget | E::Pause) => Self::Idle,
            (_, E::Fail | E::Ground | E::Carry | E::Follow | E::Clear | E::Lose | E::Miss | E::Resume) => self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 8] = [
        Phase::Pending,
        Phase::Grounded,
        Phase::Tracked,
        Phase::Stale,
        Phase::Lost,
        Phase::Vacant,
        Phase::Failed,
        Phase::Paused,
    ];
    const LOOKS: [Look; 4] = [Look::Idle, Look::Asked, Look::Proposed, Look::Answered];
    const EVENTS: [Event; 14] = [
        Event::Ask,
        Event::Propose,
        Event::Answer,
        Event::Use,
        Event::Fail,
        Event::Ground,
        Event::Carry,
        Event::Follow,
        Event::Clear,
        Event::Lose,
        Event::Miss,
        Event::Retarget,
        Event::Pause,
        Event::Resume,
    ];

    /// The rows of the documented table that begins with `corner`, its head first.
    fn table(corner: &str) -> Vec<Vec<String>> {
        let lines = include_str!("state.rs").lines().filter_map(|l| l.strip_prefix("//! |"));
        let rows = lines.map(|l| l.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        let mut rows = rows.skip_while(|row| row[0] != corner);
        let head = rows.next().expect("the table is there");
        let rest = rows.skip(1).take_while(|row| !["phase", "look"].contains(&row[0].as_str()));
        std::iter::once(head).chain(rest).collect()
    }

    /// Holds each cell of a table against what the code does, and says where they differ.
    fn check<T: Copy + std::fmt::Debug>(corner: &str, all: &[T], after: impl Fn(T, Event) -> Option<T>) {
        let rows = table(corner);
        let names: Vec<String> = EVENTS.iter().map(|e| format!("{e:?}").to_lowercase()).collect();
        assert_eq!(rows[0][1..=EVENTS.len()], names, "columns of {corner}");
        assert_eq!(rows.len(), all.len() + 1, "rows of {corner}");
        let mut wrong = Vec::new();
        for (row, from) in rows[1..].iter().zip(all) {
            assert_eq!(row[0], format!("{from:?}"));
            for (cell, event) in row[1..].iter().zip(EVENTS) {
                let to = after(*from, event).map(|to| format!("{to:?}"));
                let said = match cell.as_str() {
                    "–" => None,
                    "=" => Some(format!("{from:?}")),
                    to => Some(to.to_owned()),
                };
                if to != said {
                    wrong.push(format!("{from:?} after {event:?}: documented {said:?}, done {to:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_transition_is_as_documented() {
        check("phase", &PHASES, Phase::after);
        check("look", &LOOKS, Look::after);
    }

    #[test]
    fn a_state_moves_in_both_halves_or_not_at_all() {
        for phase in PHASES {
            for look in LOOKS {
                for event in EVENTS {
                    let halves = phase.after(event).zip(look.after(event));
                    let state = State { phase, look }.after(event);
                    assert_eq!(state, halves.map(|(phase, look)| State { phase, look }));
                }
            }
        }
    }

    #[test]
    fn a_new_target_can_get_everywhere_and_from_everywhere_to_a_mask() {
        let reach = |from: State| {
            let mut seen = vec![from];
            let mut at = 0;
            while at < seen.len() {
                let from: State = seen[at];
                for next in EVENTS.iter().filter_map(|e| from.after(*e)) {
                    if !seen.contains(&next) {
                        seen.push(next);
                    }
                }
                at += 1;
            }
            seen
        };
        let all = reach(State::NEW);
        // A paused target has an idle look; every other pair occurs.
        assert_eq!(all.len(), 7 * 4 + 1);
        assert!(all.iter().all(|s| s.phase != Phase::Paused || s.look == Look::Idle));
        for from in all {
            assert!(reach(from).iter().any(|s| s.phase == Phase::Grounded), "{from:?} is a dead end");
        }
    }
}
