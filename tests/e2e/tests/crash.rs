//! The Job is ended at a write, and another one follows it. See `pvmigrate_e2e::crash`.
//!
//! The list of writes is generated from a run, so a new write of the Job is a new point by itself.

use pvmigrate_e2e::crash::{
    Ending, Kind, Point, Strike, all_points, run_points, spread, writes_of,
};
use pvmigrate_e2e::{When, run_test};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_a_spread_of_its_writes_the_job_still_ends_well() {
    run_test("crash", async |test| {
        let points = all_points(test, Kind::Deployment, Ending::Migrated).await?;
        run_points(test, spread(&points, 12), 4).await
    })
    .await;
}
