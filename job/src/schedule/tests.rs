use std::time::Duration;

use super::*;

const LIMITS: Limits = Limits {
    groups: 4,
    per_node: 2,
};

fn item(seconds: u64) -> Item {
    weighing(seconds, 0)
}

fn weighing(seconds: u64, bytes: u128) -> Item {
    Item {
        weight: Weight {
            downtime: Duration::from_secs(seconds),
            bytes,
        },
        ..Item::default()
    }
}

fn of_wave(wave: i64) -> Item {
    Item {
        wave,
        ..Item::default()
    }
}

fn in_lane(set: &str, ordinal: i64) -> Item {
    let lane = Lane {
        set: set.into(),
        ordinal,
        pod: format!("shop/{set}-{ordinal}"),
    };
    Item {
        lane: Some(lane),
        ..Item::default()
    }
}

fn on(nodes: &[(&str, usize)]) -> Item {
    Item {
        movers: nodes
            .iter()
            .map(|(n, count)| (n.to_string(), *count))
            .collect(),
        ..Item::default()
    }
}

/// All that may start now.
fn started(schedule: &mut Schedule) -> Vec<usize> {
    std::iter::from_fn(|| schedule.start()).collect()
}

#[test]
fn a_group_whose_movers_are_gone_makes_room_for_the_next() {
    let item = || Item {
        movers: [("n1".to_string(), 2)].into(),
        ..Item::default()
    };
    let limits = Limits {
        groups: 4,
        per_node: 2,
    };
    let mut schedule = Schedule::new(vec![item(), item(), item()], limits);
    assert_eq!(schedule.start(), Some(0));
    assert_eq!(schedule.start(), None);
    schedule.movers_gone(0);
    assert_eq!(schedule.start(), Some(1));
    assert_eq!(schedule.start(), None);
}

#[test]
fn a_group_that_stops_somebody_does_so_where_its_movers_are() {
    for (stops, expected) in [(true, &["a", "b"][..]), (false, &[])] {
        let item = Item {
            stops,
            ..on(&[("a", 1), ("b", 2)])
        };
        let schedule = Schedule::new(vec![item], LIMITS);
        let nodes = schedule.stops_on(0);
        assert_eq!(nodes.iter().collect::<Vec<_>>(), expected, "{stops}");
    }
}

#[test]
fn the_shorter_downtime_goes_first_and_no_more_at_a_time_than_allowed() {
    let mut schedule = Schedule::new([5, 3, 9, 1, 0, 3].map(item).into(), LIMITS);
    assert_eq!(started(&mut schedule), [4, 3, 1, 5]);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
    schedule.end(5, How::Well);
    assert_eq!(started(&mut schedule), [0]);
    // One that failed makes way too.
    schedule.end(0, How::Badly);
    assert_eq!(started(&mut schedule), [2]);
}

#[test]
fn of_the_same_downtime_the_least_to_copy_goes_first() {
    let items = [(3, 9), (3, 1), (0, 20), (3, 5)].map(|(seconds, bytes)| weighing(seconds, bytes));
    let mut schedule = Schedule::new(items.into(), LIMITS);
    assert_eq!(started(&mut schedule), [2, 1, 3, 0]);
}

#[test]
fn of_the_same_downtime_the_group_goes_first_that_most_of_its_lane_waits_for() {
    let mut short = item(1);
    short.weight.downtime = Duration::ZERO;
    let lane = |set: &str, ordinal| Item {
        weight: weighing(1, 9).weight,
        ..in_lane(set, ordinal)
    };
    let items = vec![
        weighing(1, 1),
        lane("db", 0),
        lane("db", 1),
        lane("db", 2),
        lane("mq", 0),
        lane("mq", 1),
        short,
    ];
    let mut schedule = Schedule::new(items, LIMITS);
    assert_eq!(started(&mut schedule)[..4], [6, 3, 5, 0]);
}

#[test]
fn a_wave_starts_when_the_one_before_has_ended_however() {
    let mut schedule = Schedule::new([7, -1, 0, -1].map(of_wave).into(), LIMITS);
    assert_eq!(started(&mut schedule), [1, 3]);
    schedule.end(1, How::Well);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
    schedule.end(3, How::Badly);
    assert_eq!(started(&mut schedule), [2]);
    schedule.end(2, How::Well);
    assert_eq!(started(&mut schedule), [0]);
}

#[test]
fn no_wave_starts_after_one_that_was_interrupted() {
    let mut schedule = Schedule::new([0, 0, 1].map(of_wave).into(), LIMITS);
    assert_eq!(started(&mut schedule), [0, 1]);
    schedule.end(0, How::Interrupted);
    schedule.end(1, How::Well);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
}

#[test]
fn a_node_has_no_more_movers_than_allowed_but_for_a_group_that_needs_more() {
    let items = [
        on(&[("a", 1)]),
        on(&[("a", 1), ("b", 1)]),
        on(&[("a", 3)]),
        on(&[("b", 2)]),
        on(&[]),
    ];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    assert_eq!(started(&mut schedule), [0, 1, 4]);
    schedule.end(0, How::Well);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
    // The node is empty now: there the three may be, and nobody else until they are done.
    schedule.end(1, How::Well);
    assert_eq!(started(&mut schedule), [2, 3]);
}

#[test]
fn of_one_set_one_pod_at_a_time_the_highest_first_and_sets_side_by_side() {
    let items = [
        in_lane("db", 0),
        in_lane("db", 10),
        in_lane("db", 9),
        in_lane("mq", 0),
        in_lane("mq", 1),
    ];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    // Two have their turn, and the next of each stands ready.
    assert_eq!(started(&mut schedule), [1, 4, 2, 3]);
    let after = |pod: &str| Turn::After(pod.into());
    let turns = [
        after("shop/db-10"),
        Turn::Now,
        after("shop/db-10"),
        after("shop/mq-1"),
        Turn::Now,
    ];
    assert_eq!(schedule.turns(), turns);
    schedule.end(1, How::Well);
    assert_eq!(started(&mut schedule), [0]);
    assert_eq!(schedule.turns()[2], Turn::Now);
    schedule.end(2, How::Well);
    schedule.end(4, How::Well);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
    assert_eq!(schedule.turns(), [const { Turn::Now }; 5]);
}

#[test]
fn one_that_stands_ready_takes_no_place_of_those_that_may_stop_and_room_for_a_mover() {
    let on_a = |item: Item| Item {
        movers: [("a".to_string(), 1)].into(),
        ..item
    };
    let items = [
        on_a(in_lane("db", 2)),
        on_a(in_lane("db", 1)),
        on_a(item(7)),
        item(8),
    ];
    let limits = Limits {
        groups: 2,
        per_node: 2,
    };
    let mut schedule = Schedule::new(items.into(), limits);
    // Who may stop goes first, and takes the room.
    assert_eq!(started(&mut schedule), [0, 2]);
    schedule.end(2, How::Well);
    assert_eq!(started(&mut schedule), [3, 1]);
}

#[test]
fn the_rest_of_a_lane_does_not_begin_after_one_that_did_not_end_well() {
    let items = [
        in_lane("db", 0),
        in_lane("db", 1),
        in_lane("db", 2),
        in_lane("mq", 0),
    ];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    assert_eq!(started(&mut schedule), [2, 3, 1]);
    assert_eq!(schedule.leave(), None);
    schedule.end(2, How::Badly);
    schedule.end(3, How::Well);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
    assert_eq!(schedule.leave(), Some((0, "shop/db-2".into())));
    assert_eq!(schedule.leave(), None);
    // This one stood ready, and nothing of it was stopped.
    assert_eq!(schedule.turns()[1], Turn::Never("shop/db-2".into()));
    schedule.end(1, How::Badly);
    assert_eq!(schedule.leave(), None);
    assert_eq!(started(&mut schedule), Vec::<usize>::new());
}

#[test]
fn an_interrupted_lane_is_left_to_the_next_job_as_it_is() {
    let items = [in_lane("db", 0), in_lane("db", 1), in_lane("db", 2)];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    assert_eq!(started(&mut schedule), [2, 1]);
    schedule.end(2, How::Interrupted);
    assert_eq!(schedule.turns()[1], Turn::InAnotherJob);
    schedule.end(1, How::Interrupted);
    assert_eq!(schedule.leave(), None);
    assert_eq!(schedule.start(), None);
}

#[test]
fn what_an_earlier_job_has_begun_is_ended_whatever_became_of_its_lane() {
    let begun = Item {
        begun: true,
        ..in_lane("db", 0)
    };
    let items = [begun, in_lane("db", 1), in_lane("db", 2)];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    assert_eq!(started(&mut schedule), [2, 1]);
    schedule.end(2, How::Badly);
    schedule.end(1, How::Badly);
    assert_eq!(schedule.leave(), None);
    assert_eq!(started(&mut schedule), [0]);
}

#[test]
fn waves_go_before_the_order_of_a_lane() {
    let early = Item {
        wave: -1,
        ..in_lane("db", 0)
    };
    let items = [in_lane("db", 2), early, in_lane("db", 1)];
    let mut schedule = Schedule::new(items.into(), LIMITS);
    for expected in [vec![1], vec![0, 2]] {
        assert_eq!(started(&mut schedule), expected);
        for index in expected {
            schedule.end(index, How::Well);
        }
    }
}

/// Whatever the groups are and however they end, no limit is passed and none is forgotten.
#[test]
fn every_group_starts_once_or_is_left() {
    // A small generator of numbers: the cases are many, and always the same.
    let mut seed = 7_u64;
    let mut below = |bound: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for _ in 0..2000 {
        let limits = Limits {
            groups: 1 + usize::try_from(below(4)).unwrap(),
            per_node: 1 + usize::try_from(below(3)).unwrap(),
        };
        let items: Vec<Item> = (0..below(12))
            .map(|number| {
                let node = ["a", "b"][usize::try_from(below(2)).unwrap()];
                let base = if below(2) == 0 {
                    item(0)
                } else {
                    in_lane(
                        ["db", "mq"][usize::try_from(below(2)).unwrap()],
                        i64::try_from(number).unwrap(),
                    )
                };
                Item {
                    wave: i64::try_from(below(3)).unwrap(),
                    weight: item(below(5)).weight,
                    movers: on(&[(node, 1 + usize::try_from(below(4)).unwrap())]).movers,
                    begun: below(8) == 0,
                    ..base
                }
            })
            .collect();
        let count = items.len();
        let mut schedule = Schedule::new(items, limits);
        let (mut running, mut done) = (Vec::new(), 0);
        loop {
            while let Some((_, by)) = schedule.leave() {
                assert!(!by.is_empty());
                done += 1;
            }
            running.extend(started(&mut schedule));
            let turns = schedule.turns();
            let (stopping, waiting): (Vec<usize>, Vec<usize>) =
                running.iter().partition(|index| !turns[**index].is_later());
            assert!(stopping.len() <= limits.groups && waiting.len() <= stopping.len());
            if running.is_empty() {
                break;
            }
            for node in ["a", "b"] {
                let movers = running
                    .iter()
                    .filter_map(|index| schedule.items[*index].0.movers.get(node));
                let (most, sum) = (movers.clone().max(), movers.sum::<usize>());
                assert!(sum <= limits.per_node || most == Some(&sum));
            }
            let index = usize::try_from(below(running.len() as u64)).unwrap();
            let how = if below(4) == 0 { How::Badly } else { How::Well };
            schedule.end(running.swap_remove(index), how);
            done += 1;
        }
        assert_eq!(done, count);
    }
}
