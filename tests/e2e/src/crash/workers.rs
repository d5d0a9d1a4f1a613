//! Many points side by side, each worker with a release of its own.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use super::point::{Point, play};
use super::release::Release;
use crate::Cluster;

/// Narrows the points to those at these writes, by their numbers: `7,12`.
const WRITES_VARIABLE: &str = "PVMIGRATE_TEST_WRITES";

/// Plays all points, and fails with those that did not end as they must.
pub async fn run_points(cluster: &Cluster, points: Vec<Point>, workers: usize) -> Result<()> {
    let begun = Instant::now();
    let points: Vec<Point> = match std::env::var(WRITES_VARIABLE) {
        Ok(wanted) => {
            let is_wanted = |number: usize| wanted.split(',').any(|w| w == number.to_string());
            let points = points.into_iter();
            let points: Vec<Point> = points.filter(|p| is_wanted(p.write.number)).collect();
            ensure!(
                !points.is_empty(),
                "{WRITES_VARIABLE}={wanted} names no write of this run: numbers, as in 7,12"
            );
            points
        }
        Err(_) => points,
    };
    let (total, workers) = (points.len(), workers.min(points.len()));
    let queue = Mutex::new(VecDeque::from(points));
    let played = try_join_all((0..workers).map(|_| work(cluster, &queue))).await?;
    let played: Vec<Played> = played.into_iter().flatten().collect();
    let never = played
        .iter()
        .filter(|p| matches!(p.outcome, Ok(false)))
        .count();
    let failed: Vec<&Played> = played.iter().filter(|p| p.outcome.is_err()).collect();
    println!(
        "{total} points: {} passed, {} failed, {never} whose write did not come; {:.0} s",
        played.len() - failed.len(),
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    let slowest = played.iter().max_by_key(|played| played.took);
    if let Some(slowest) = slowest {
        println!(
            "slowest: {} ({:.1} s)",
            slowest.point,
            slowest.took.as_secs_f64()
        );
    }
    let failed: Vec<String> = failed
        .iter()
        .map(|played| played.point.to_string())
        .collect();
    ensure!(
        failed.is_empty(),
        "these did not end well:\n{}",
        failed.join("\n")
    );
    Ok(())
}

struct Played {
    point: Point,
    outcome: Result<bool>,
    took: Duration,
}

async fn work(cluster: &Cluster, queue: &Mutex<VecDeque<Point>>) -> Result<Vec<Played>> {
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let mut release = Release::install(cluster).await?;
    let mut all = Vec::new();
    while let Some(point) = next() {
        let begun = Instant::now();
        let outcome = play(&release, &point).await;
        let took = begun.elapsed();
        let said = match &outcome {
            Ok(true) => "ok".into(),
            Ok(false) => "ok, the write did not come".into(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        println!("{:6.1} s  {point}: {said}", took.as_secs_f64());
        if outcome.is_err() {
            // What it left stays to be looked at, and would be gone on with by the next Job.
            release = Release::install(cluster).await?;
        }
        all.push(Played {
            point,
            outcome,
            took,
        });
    }
    release.uninstall().await?;
    Ok(all)
}
