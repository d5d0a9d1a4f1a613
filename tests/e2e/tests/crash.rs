//! The Job is ended at a write, and another one follows it. See `pvmigrate_e2e::crash`.
//!
//! The list of writes is generated from a run, so a write that is new in the Job is covered by
//! itself. A spread of all points runs always; all of them take long.

use anyhow::Result;
use pvmigrate_e2e::crash::{Course, Ending, Kind, Point, run_points, spread};
use pvmigrate_e2e::{Test, run_test};

/// More of them than cores: most of a point is waiting for the cluster.
const WORKERS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_at_any_of_a_spread_of_writes_the_job_is_followed_by_one_that_ends_as_if_nothing_was()
{
    run_test("crash", async |test| {
        let (plain, group, failing) = tokio::try_join!(
            Course::run(&test.cluster, Kind::Deployment, Ending::Migrated),
            Course::run(&test.cluster, Kind::StatefulSet, Ending::Migrated),
            Course::run(&test.cluster, Kind::Deployment, Ending::FailedLate),
        )?;
        // Those that take longest first.
        let mut points = spread(&failing.kills(), 4);
        points.extend(spread(&plain.outlivings(), 2));
        points.extend(plain.double_kills(2));
        points.extend(spread(&plain.terminations(), 2));
        points.extend(spread(&group.kills(), 4));
        points.extend(spread(&plain.kills(), 8));
        run_points(&test.cluster, points, WORKERS).await
    })
    .await;
}

/// Plays the points that follow from one run.
async fn all(name: &str, kind: Kind, ending: Ending, points: impl FnOnce(&Course) -> Vec<Point>) {
    let body = async |test: &Test| -> Result<()> {
        let course = Course::run(&test.cluster, kind, ending).await?;
        run_points(&test.cluster, points(&course), WORKERS).await
    };
    run_test(name, body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_one_claim() {
    all(
        "crash-one",
        Kind::Deployment,
        Ending::Migrated,
        Course::kills,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_group_of_two_claims() {
    all(
        "crash-group",
        Kind::StatefulSet,
        Ending::Migrated,
        Course::kills,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_migration_that_fails_before_anything_was_stopped() {
    all(
        "crash-early",
        Kind::Deployment,
        Ending::FailedEarly,
        Course::kills,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_migration_that_fails_with_its_claim_gone() {
    all(
        "crash-late",
        Kind::Deployment,
        Ending::FailedLate,
        Course::kills,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_group_that_fails_with_its_claims_gone() {
    all(
        "crash-late-group",
        Kind::StatefulSet,
        Ending::FailedLate,
        Course::kills,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: many random pairs of writes"]
async fn killed_and_killed_again() {
    let points = |course: &Course| course.double_kills(60);
    all("crash-twice", Kind::StatefulSet, Ending::Migrated, points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: many random pairs of writes"]
async fn killed_and_killed_again_where_the_migration_fails() {
    let points = |course: &Course| course.double_kills(40);
    all(
        "crash-twice-late",
        Kind::Deployment,
        Ending::FailedLate,
        points,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write"]
async fn told_to_end_at_any_write() {
    all(
        "crash-sigterm",
        Kind::Deployment,
        Ending::Migrated,
        Course::terminations,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, and the Lease each time"]
async fn outlived_by_another_job_at_any_write() {
    all(
        "crash-stale",
        Kind::Deployment,
        Ending::Migrated,
        Course::outlivings,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, and the Lease each time"]
async fn outlived_by_another_job_at_any_write_where_the_migration_fails() {
    all(
        "crash-stale-late",
        Kind::Deployment,
        Ending::FailedLate,
        Course::outlivings,
    )
    .await;
}
