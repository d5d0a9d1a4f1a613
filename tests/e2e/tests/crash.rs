//! The Job is ended at a write, and another one follows it. See `pvmigrate_e2e::crash`.
//!
//! The list of writes is generated from a run, so a write that is new in the Job is covered by
//! itself. A spread of all points runs always; all of them take long.

use anyhow::Result;
use pvmigrate_e2e::Cluster;
use pvmigrate_e2e::crash::{Course, Ending, Kind, Point, run_points, spread};
use tokio::sync::Mutex;

/// More of them than cores: most of a point is waiting for the cluster.
const WORKERS: usize = 6;
/// The workers of one test are all that two cores can feed.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_at_any_of_a_spread_of_writes_the_job_is_followed_by_one_that_ends_as_if_nothing_was()
-> Result<()> {
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let cluster = Cluster::get().await?;
    let plain = async {
        let course = Course::run(&cluster, Kind::Deployment, Ending::Migrated).await?;
        // Those that take longest first.
        let mut points = spread(&course.outlivings(), 2);
        points.extend(course.double_kills(2));
        points.extend(spread(&course.terminations(), 2));
        points.extend(spread(&course.kills(), 8));
        run_points(&cluster, points, 4).await
    };
    let set = async {
        let course = Course::run(&cluster, Kind::StatefulSet, Ending::Migrated).await?;
        run_points(&cluster, spread(&course.kills(), 4), 2).await
    };
    let failing = async {
        let course = Course::run(&cluster, Kind::Deployment, Ending::FailedLate).await?;
        run_points(&cluster, spread(&course.kills(), 3), 3).await
    };
    let attached = async {
        if cluster.bed.is_none() {
            return Ok(());
        }
        let course = Course::run(&cluster, Kind::Attached, Ending::Migrated).await?;
        run_points(&cluster, spread(&course.kills(), 4), 2).await
    };
    // All of them, also when one fails.
    let (plain, set, failing, attached) = tokio::join!(plain, set, failing, attached);
    plain.and(set).and(failing).and(attached)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every point is a run, its abort, and the run again"]
async fn aborted_at_any_of_a_spread_of_writes_everything_is_as_it_was_and_can_begin_again()
-> Result<()> {
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let cluster = Cluster::get().await?;
    let plain = async {
        let course = Course::run(&cluster, Kind::Deployment, Ending::Migrated).await?;
        let mut points = spread(&course.aborts(), 8);
        points.extend(spread(&course.double_aborts(), 3));
        run_points(&cluster, points, 4).await
    };
    let set = async {
        let course = Course::run(&cluster, Kind::StatefulSet, Ending::Migrated).await?;
        run_points(&cluster, spread(&course.aborts(), 4), 2).await
    };
    let (plain, set) = tokio::join!(plain, set);
    plain.and(set)
}

/// Plays the points that follow from one run.
async fn all(kind: Kind, ending: Ending, points: impl Fn(&Course) -> Vec<Point>) -> Result<()> {
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let cluster = Cluster::get().await?;
    let course = Course::run(&cluster, kind, ending).await?;
    run_points(&cluster, points(&course), WORKERS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_one_claim() -> Result<()> {
    all(Kind::Deployment, Ending::Migrated, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_one_claim_on_attached_volumes() -> Result<()> {
    all(Kind::Attached, Ending::Migrated, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_one_claim_on_attached_volumes_that_fails_late() -> Result<()> {
    all(Kind::Attached, Ending::FailedLate, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_set_of_two_claims() -> Result<()> {
    all(Kind::StatefulSet, Ending::Migrated, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_migration_that_fails_before_anything_was_stopped() -> Result<()> {
    all(Kind::Deployment, Ending::FailedEarly, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_migration_that_fails_with_its_claim_gone() -> Result<()> {
    all(Kind::Deployment, Ending::FailedLate, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after"]
async fn killed_at_any_write_of_a_set_that_fails_with_its_claims_gone() -> Result<()> {
    all(Kind::StatefulSet, Ending::FailedLate, Course::kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: many random pairs of writes"]
async fn killed_and_killed_again() -> Result<()> {
    let points = |course: &Course| course.double_kills(60);
    all(Kind::StatefulSet, Ending::Migrated, points).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: many random pairs of writes"]
async fn killed_and_killed_again_where_the_migration_fails() -> Result<()> {
    let points = |course: &Course| course.double_kills(40);
    all(Kind::Deployment, Ending::FailedLate, points).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write"]
async fn told_to_end_at_any_write() -> Result<()> {
    all(Kind::Deployment, Ending::Migrated, Course::terminations).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, before and after, and the run again"]
async fn aborted_at_any_write_of_a_set_of_two_claims() -> Result<()> {
    all(Kind::StatefulSet, Ending::Migrated, Course::aborts).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, and the run again"]
async fn aborted_at_any_write_with_the_abort_killed_too() -> Result<()> {
    all(Kind::Deployment, Ending::Migrated, Course::double_aborts).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, and the Lease each time"]
async fn outlived_by_another_job_at_any_write() -> Result<()> {
    all(Kind::Deployment, Ending::Migrated, Course::outlivings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: every write, and the Lease each time"]
async fn outlived_by_another_job_at_any_write_where_the_migration_fails() -> Result<()> {
    all(Kind::Deployment, Ending::FailedLate, Course::outlivings).await
}
