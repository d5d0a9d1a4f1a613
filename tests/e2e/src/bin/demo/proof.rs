//! What is there afterwards, compared with what was there before.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use pvmigrate_e2e::example::{self, CLAIMS, LONG, Line};
use pvmigrate_e2e::{Cluster, bound, tree};

/// A listing of each claim's tree: names, contents by sha256, owners, modes, times, attributes,
/// ACLs, links.
pub async fn listings(
    cluster: &Cluster,
    namespace: &str,
    pods: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (claim, pod) in pods {
        let listing = cluster
            .exec(namespace, pod, &format!("cd /data && {}", tree::LIST))
            .await?;
        all.insert(claim.clone(), listing);
    }
    Ok(all)
}

/// Prints a line for each claim, and returns the longest time that an application was away, in
/// seconds. Fails if anything was lost or changed.
pub async fn check(
    cluster: &Cluster,
    namespace: &str,
    before: &BTreeMap<String, String>,
    heard: &BTreeMap<String, Vec<Line>>,
) -> Result<f64> {
    let pods = example::pods(cluster, namespace, &CLAIMS).await?;
    let after = listings(cluster, namespace, &pods).await?;
    let mut longest: f64 = 0.0;
    println!("   claim          now on   its tree          its log                   away");
    for claim in CLAIMS {
        let now = bound(cluster, namespace, claim).await?;
        ensure!(
            now.class() == cluster.classes[1],
            "claim {claim} is of {}",
            now.class()
        );
        if let Some(difference) = tree::difference(&before[claim], &after[claim]) {
            bail!("claim {claim}: {difference}");
        }
        let text = cluster
            .exec(namespace, &pods[claim], "cat /data/log")
            .await?;
        let log = example::lines(&text)?;
        let away = example::longest_silence(&log).with_context(|| format!("claim {claim}"))?;
        let heard = heard.get(claim).map(Vec::as_slice).unwrap_or_default();
        ensure!(!heard.is_empty(), "nothing was heard of {claim}");
        for line in heard {
            ensure!(
                log.contains(line),
                "claim {claim}: line {} was written and is lost",
                line.number
            );
        }
        longest = longest.max(away);
        let entries = before[claim]
            .lines()
            .next()
            .map_or(0, |line| line.matches("^@").count());
        let name = if claim == LONG {
            format!("{}…", &LONG[..12])
        } else {
            claim.into()
        };
        println!(
            "   {name:<13}  {:<7}  all {entries} equal   {:>5} lines, none lost   {away:4.1} s",
            now.class(),
            log.len()
        );
    }
    println!(
        "   Equal: names, contents (sha256), owners, modes, times, xattrs, ACLs, links, as seen by GNU tools."
    );
    println!(
        "   \"away\" is the longest time between two lines of an application's own log; the lines were also"
    );
    println!("   heard on its stdout while it wrote them, and each one that was heard is there.");
    Ok(longest)
}
