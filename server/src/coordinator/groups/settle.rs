//! What follows when an append is durable, or has failed: only then is memory changed, and whoever waits answered.

use headwater_protocol::error::ErrorCode;

use super::{
    group::{Group, Phase},
    step::{Step, Write},
};
use crate::model::group::{Answer, refusal};

/// An append is durable, or has failed.
pub(super) fn settle(group: &mut Group, write: Write, outcome: Result<(), ErrorCode>, step: &mut Step<'_>) {
    match (write, outcome) {
        (Write::Assigned { generation, assigned }, outcome) => {
            if generation == group.generation && matches!(group.phase, Phase::Completing { .. }) {
                group.assigned(assigned, outcome, step);
            }
        }
        (Write::Emptied, outcome) => group.is_behind = outcome.is_err() && group.consumers.is_none(),
        (Write::End, Ok(())) => {}
        (Write::Marker { .. }, _) => unreachable!("it is of no group"),
        (Write::Delete { call }, Ok(())) => step.answer(call, Answer::Deleted),
        // A group whose end could not be written is as it was.
        (Write::End, Err(_)) => group.phase = Phase::Empty,
        (Write::Delete { call }, Err(error)) => {
            group.phase = Phase::Empty;
            step.refuse(call, refusal(error));
        }
        (Write::Changes(changes), outcome) => group.stored_changes(changes, outcome, step),
        (Write::TurnClassic { then }, outcome) => group.turned_classic(then, outcome, step),
        (Write::Replace { call, member }, outcome) => group.replaced(call, &member, outcome, step),
        (
            Write::Commit {
                call,
                of,
                offsets,
                codes,
            },
            Ok(()),
        ) => {
            for (place, committed) in offsets {
                match of {
                    Some(producer) => group.pending.add(producer, place, committed),
                    None => group.stands(place, Some(committed)),
                }
            }
            step.answer(call, Answer::Committed(codes));
        }
        (Write::Commit { call, codes, .. }, Err(error)) => {
            let code = commit_code(error);
            let codes = codes.into_iter().map(|own| if own.is_none() { code } else { own });
            step.answer(call, Answer::Committed(codes.collect()));
        }
        (Write::Forget { call, places }, Ok(())) => {
            for place in places {
                group.stands(place, None);
            }
            if let Some((call, codes)) = call {
                step.answer(call, Answer::Forgotten(codes));
            }
        }
        (Write::Forget { call, .. }, Err(error)) => {
            if let Some((call, _)) = call {
                step.refuse(call, refusal(error));
            }
        }
    }
}

/// Kafka's name for a commit that is larger than the log takes.
fn commit_code(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::InvalidCommitOffsetSize,
        error => error,
    }
}
