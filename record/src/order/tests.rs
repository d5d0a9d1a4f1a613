use super::*;

#[test]
fn every_order_is_greater_than_the_one_before_and_an_older_job_gives_none() {
    let first = Order::sequence_after(None, 3).unwrap();
    let second = Order::sequence_after(Some(first), 3).unwrap();
    assert_eq!(second, first + 1);
    let after_a_takeover = Order::sequence_after(Some(second), 4).unwrap();
    assert!(after_a_takeover > second);
    assert_eq!(Order::sequence_after(Some(after_a_takeover), 3), None);
    // As a Job of an earlier release gave them.
    assert_eq!(Order::sequence_after(Some(3), 3), Some(first));
}

#[test]
fn only_a_warm_order_may_be_for_whoever_finds_it() {
    let order = |pod: &str, what| Order {
        pod: pod.into(),
        sequence: 1,
        what,
        at_end: false,
    };
    assert_eq!(order("", What::Warm).read_by("u"), order("u", What::Warm));
    for other in [order("", What::Final), order("v", What::Warm)] {
        assert_eq!(other.clone().read_by("u"), other);
    }
}

#[test]
fn a_report_is_one_tagged_line() {
    let order = Order {
        pod: "u".into(),
        sequence: 7,
        what: What::Final,
        at_end: false,
    };
    let pass = PassReport {
        order: Some(order),
        ok: true,
        ..PassReport::default()
    };
    let report = Report::Pass(Box::new(pass));
    let line = serde_json::to_string(&report).unwrap();
    assert!(line.starts_with(
        r#"{"event":"pass","order":{"pod":"u","sequence":7,"what":"final"},"pass":0,"ok":true"#
    ));
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
}

#[test]
fn an_order_that_does_not_say_when_is_for_now() {
    let order = |more: &str| format!(r#"{{"pod":"u","sequence":7,"what":"final"{more}}}"#);
    let read = |text: &str| serde_json::from_str::<Order>(text).unwrap();
    assert!(!read(&order("")).at_end);
    let at_end = order(r#","atEnd":true"#);
    assert!(read(&at_end).at_end);
    assert_eq!(serde_json::to_string(&read(&at_end)).unwrap(), at_end);
}
