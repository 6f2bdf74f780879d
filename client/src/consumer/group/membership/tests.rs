//! A member against the answers that a group may give.

use std::sync::Arc;

use super::*;
use crate::deadline::BackoffLimits;

const INTERVAL: Duration = Duration::from_secs(3);

fn place(partition: i32) -> Place {
    (TopicName::new("t").unwrap(), PartitionIndex::new(partition))
}

fn places(partitions: impl IntoIterator<Item = i32>) -> BTreeSet<Place> {
    partitions.into_iter().map(place).collect()
}

fn refused(code: ErrorCode) -> Error {
    Error::Broker {
        code,
        message: Arc::from(""),
    }
}

struct Member {
    membership: Membership,
    now: Instant,
}

impl Member {
    fn new(cooperative: bool) -> Self {
        let now = Instant::now();
        let limits = BackoffLimits {
            min: Duration::from_millis(10),
            max: Duration::from_millis(10),
            seed: Some(1),
        };
        let rules = Rules {
            cooperative,
            heartbeat_interval: INTERVAL,
        };
        let mut membership = Membership::new(rules, None, Backoff::new(limits), now);
        membership.subscribe(BTreeSet::from([TopicName::new("t").unwrap()]));
        Self { membership, now }
    }

    /// What it does next, after whatever wait it wants.
    fn next(&mut self) -> Action {
        loop {
            match self.membership.plan(self.now) {
                (Some(action), _) => return action,
                (None, Some(at)) => self.now = at,
                (None, None) => panic!("it waits for ever: {:?}", self.membership),
            }
        }
    }

    fn joined(&mut self, generation: i32) -> Change {
        assert_eq!(self.next(), Action::Join);
        let member_id = "m".to_owned();
        let joined = Joined::Generation { member_id, generation };
        self.membership.on_joined(Ok(joined), self.now).unwrap()
    }

    fn synced(&mut self, partitions: impl IntoIterator<Item = i32>) -> Change {
        assert_eq!(self.next(), Action::Sync);
        let assigned = places(partitions).into_iter().collect();
        self.membership.on_synced(Ok(assigned), self.now).unwrap()
    }

    fn heartbeat(&mut self, generation: i32, result: Result<(), ErrorCode>) -> Result<Change, Error> {
        assert_eq!(self.next(), Action::Heartbeat);
        self.membership
            .on_heartbeat(generation, result.map_err(refused), self.now)
    }

    fn claims(&self) -> Vec<i32> {
        let owned = self.membership.subscription().owned_partitions;
        owned.into_iter().flat_map(|topic| topic.partitions).collect()
    }
}

fn stable(cooperative: bool, partitions: impl IntoIterator<Item = i32>) -> Member {
    let mut member = Member::new(cooperative);
    assert_eq!(member.joined(1), Change::default());
    member.synced(partitions);
    member
}

#[test]
fn a_new_member_joins_with_the_id_that_it_is_told() {
    let mut member = Member::new(true);
    assert_eq!(member.next(), Action::Join);
    let named = Joined::AsMember("m".to_owned());
    member.membership.on_joined(Ok(named), member.now).unwrap();
    assert_eq!(member.membership.identity().member_id, "m");
    member.joined(1);
    let change = member.synced([0, 1]);
    assert_eq!(change.added, places([0, 1]));
    assert_eq!(member.heartbeat(1, Ok(())).unwrap(), Change::default());
}

#[test]
fn only_revoked_partitions_stop_and_they_are_claimed_until_they_are_given_up() {
    let mut member = stable(true, [0, 1, 2, 3]);
    let change = member.heartbeat(1, Err(ErrorCode::RebalanceInProgress)).unwrap();
    assert_eq!(change, Change::default(), "nothing stops while the group rebalances");
    assert_eq!(member.claims(), [0, 1, 2, 3]);
    member.joined(2);
    let change = member.synced([0, 1]);
    assert_eq!((change.leaving, change.added), (places([2, 3]), BTreeSet::new()));
    assert_eq!(member.claims(), [0, 1, 2, 3], "nobody else may have them yet");
    assert_eq!(member.next(), Action::Heartbeat);
    member.membership.on_heartbeat(2, Ok(()), member.now).unwrap();
    assert_eq!(member.membership.on_given_up(&places([2, 3])), places([2, 3]));
    assert_eq!(member.claims(), [0, 1]);
    member.joined(3);
    assert_eq!(member.synced([0, 1]), Change::default());
}

#[test]
fn a_partition_that_comes_back_before_it_was_given_up_goes_on() {
    let mut member = stable(true, [0, 1]);
    member.heartbeat(1, Err(ErrorCode::RebalanceInProgress)).unwrap();
    member.joined(2);
    assert_eq!(member.synced([0]).leaving, places([1]));
    member.heartbeat(2, Err(ErrorCode::RebalanceInProgress)).unwrap();
    member.joined(3);
    let change = member.synced([0, 1]);
    assert_eq!((change.kept, change.added), (places([1]), BTreeSet::new()));
    assert_eq!(member.membership.on_given_up(&places([1])), BTreeSet::new());
    assert_eq!(member.claims(), [0, 1]);
}

#[test]
fn an_eager_member_gives_up_everything_before_it_joins_again() {
    let mut member = stable(false, [0, 1]);
    let change = member.heartbeat(1, Err(ErrorCode::RebalanceInProgress)).unwrap();
    assert_eq!(change.leaving, places([0, 1]));
    // It says that it is there until the application is done.
    let change = member.heartbeat(1, Err(ErrorCode::RebalanceInProgress)).unwrap();
    assert_eq!(change, Change::default());
    member.membership.on_given_up(&places([0, 1]));
    member.joined(2);
    assert_eq!(member.synced([1]).added, places([1]));
}

#[test]
fn a_member_that_the_group_has_forgotten_loses_everything_once_and_begins_anew() {
    for code in [ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration] {
        let mut member = stable(true, [0, 1]);
        let change = member.heartbeat(1, Err(code)).unwrap();
        assert_eq!((change.lost, change.lost_by), (places([0, 1]), Some(code)));
        assert!(member.claims().is_empty());
        let keeps_its_id = code == ErrorCode::IllegalGeneration;
        assert_eq!(member.membership.identity().member_id.is_empty(), !keeps_its_id);
        assert_eq!(member.joined(5), Change::default());
        assert_eq!(member.synced([1]).added, places([1]));
    }
}

#[test]
fn a_group_that_cannot_be_reached_takes_nothing_away() {
    let mut member = stable(true, [0, 1]);
    for code in [
        ErrorCode::NotCoordinator,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
    ] {
        assert_eq!(member.heartbeat(1, Err(code)).unwrap(), Change::default());
    }
    assert_eq!(
        member.heartbeat(1, Err(ErrorCode::RebalanceInProgress)).unwrap(),
        Change::default()
    );
    assert_eq!(member.next(), Action::Join);
    let gone = Err(refused(ErrorCode::NotCoordinator));
    assert_eq!(
        member.membership.on_joined(gone, member.now).unwrap(),
        Change::default()
    );
    member.joined(2);
    assert_eq!(member.next(), Action::Sync);
    let gone = Err(refused(ErrorCode::NotCoordinator));
    assert_eq!(
        member.membership.on_synced(gone, member.now).unwrap(),
        Change::default()
    );
    assert_eq!(member.synced([0, 1]), Change::default());
}

#[test]
fn a_rebalance_that_overtakes_a_sync_is_joined() {
    let mut member = Member::new(true);
    member.joined(1);
    assert_eq!(member.next(), Action::Sync);
    let overtaken = Err(refused(ErrorCode::RebalanceInProgress));
    member.membership.on_synced(overtaken, member.now).unwrap();
    member.joined(2);
    assert_eq!(member.synced([3]).added, places([3]));
}

#[test]
fn a_late_answer_to_a_heartbeat_of_an_earlier_generation_means_nothing() {
    let mut member = stable(true, [0]);
    assert_eq!(member.next(), Action::Heartbeat);
    let topics = ["t", "u"].map(|name| TopicName::new(name).unwrap());
    member.membership.subscribe(BTreeSet::from(topics));
    member.joined(2);
    member.synced([0]);
    let late = member
        .membership
        .on_heartbeat(1, Err(refused(ErrorCode::IllegalGeneration)), member.now);
    assert_eq!(late.unwrap(), Change::default());
    assert_eq!(member.claims(), [0]);
}

#[test]
fn a_fenced_or_refused_member_does_not_try_again() {
    let mut member = stable(true, [0]);
    let fenced = member.heartbeat(1, Err(ErrorCode::FencedInstanceId));
    assert_eq!(fenced.unwrap_err().code(), Some(ErrorCode::FencedInstanceId));
    let mut member = Member::new(true);
    assert_eq!(member.next(), Action::Join);
    let refusal = Err(refused(ErrorCode::InvalidSessionTimeout));
    assert!(member.membership.on_joined(refusal, member.now).is_err());
}

#[test]
fn a_member_that_went_away_does_nothing_until_it_comes_back() {
    let mut member = stable(true, [0]);
    let (who, change) = member.membership.go_away();
    assert_eq!((who.member_id.as_str(), who.generation), ("m", 1));
    assert_eq!((change.lost, change.lost_by), (places([0]), None));
    assert_eq!(member.membership.plan(member.now + INTERVAL * 10), (None, None));
    member.membership.come_back();
    member.joined(4);
    assert_eq!(member.synced([0]).added, places([0]));
}
