//! Trials that are of use afterwards: the movers of the groups that begin first. What they need is
//! provisioned and mounted as for any trial, and is there already when the run begins.
//!
//! A group whose consumer has to run elsewhere meanwhile is let go: its movers make way at once.

use futures::future::{BoxFuture, join, try_join, try_join_all};
use tokio::sync::watch;

use super::{ByMover, attempt, removal, words};
use crate::claim::access_modes;
use crate::migration::{Group, Migration};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::stage::early;
use crate::stop::Stop;
use pvmigrate_record::phase::Heading;

/// The claims of these groups that can be tried by their movers, and those that are.
pub struct Movers<'a> {
    run: &'a Run,
    suited: Vec<One<'a>>,
    /// Of each group those that are tried.
    groups: Vec<(&'a Group, Vec<Tried<'a>>)>,
}

#[derive(Clone, Copy)]
struct One<'a> {
    group: &'a Group,
    claim: &'a Migration,
}

/// A claim that is tried, and the next one like it, whose volume is asked for when the first has one:
/// it is needed when the run begins.
struct Tried<'a> {
    claim: &'a Migration,
    next: Option<One<'a>>,
}

/// Something is still tried, for as long as this exists.
struct Open<'a>(&'a watch::Sender<usize>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl<'a> Movers<'a> {
    /// Those that can. The groups' pods are watched from here on.
    pub async fn of(run: &'a Run, groups: Vec<&'a mut Group>) -> Result<Self, Stop> {
        let mut all = Vec::new();
        for group in groups {
            let watch = group.start_watch(&run.cluster).await?;
            let group = &*group;
            let suited = group.claims.iter();
            let suited = suited.filter(|claim| early::is_suited(claim, &watch));
            all.extend(suited.map(|claim| One { group, claim }));
        }
        Ok(Self {
            run,
            suited: all,
            groups: Vec::new(),
        })
    }

    /// Those that can, in the order in which their groups begin, by namespace and name.
    pub fn suited(&self) -> Vec<String> {
        let claims = self.suited.iter();
        claims
            .map(|one| one.claim.record.claim.to_string())
            .collect()
    }

    /// Has some of them tried: of each kind the first, and the next one is got ready.
    pub fn choose(&mut self, kinds: &[ByMover]) {
        for kind in kinds {
            let One { group, claim } = self.suited[kind.first];
            let next = kind.next.map(|next| self.suited[next]);
            let tried = Tried { claim, next };
            match self
                .groups
                .iter_mut()
                .find(|(known, _)| known.name == group.name)
            {
                Some((_, claims)) => claims.push(tried),
                None => self.groups.push((group, vec![tried])),
            }
        }
    }

    /// Makes them, beside what else is tried; returns what stands against the class, of both.
    pub async fn tried_beside(
        &self,
        others: impl Future<Output = Result<Vec<String>, Stop>>,
    ) -> Result<Vec<String>, Stop> {
        let (open, _) = watch::channel(self.groups.len() + 1);
        let others = async {
            let _open = Open(&open);
            others.await
        };
        let groups = self.groups.iter().map(|(group, claims)| {
            let open = &open;
            async move { self.group_tried(group, claims, open).await }
        });
        let (mut refused, of_groups) = try_join(others, try_join_all(groups)).await?;
        refused.extend(of_groups.into_iter().flatten());
        if !refused.is_empty() {
            let mut all = Vec::new();
            for tried in self.groups.iter().flat_map(|(_, claims)| claims) {
                all.push(tried.claim);
                all.extend(tried.next.map(|next| next.claim));
            }
            self.remove(all, removal::Volume::Awaited).await?;
        }
        Ok(refused)
    }

    /// Tries the claims of a group, and watches over its movers until nothing is tried any more.
    async fn group_tried(
        &self,
        group: &Group,
        claims: &[Tried<'_>],
        open: &watch::Sender<usize>,
    ) -> Result<Vec<String>, Stop> {
        let watch = group.watch()?;
        let is_open = Open(open);
        let tried = async {
            let tried = claims.iter().map(|claim| self.tried(claim, &watch));
            let refused = try_join_all(tried).await?;
            drop(is_open);
            // It fails only where nobody tries any more.
            let _ = open.subscribe().wait_for(|open| *open == 0).await;
            Ok(refused.into_iter().flatten().collect())
        };
        tokio::select! {
            refused = tried => refused,
            why = watch.consumer_moved() => {
                tracing::info!(%why, group = %group.name, "nothing is tried by its movers");
                let claims = claims.iter().map(|tried| tried.claim).collect();
                self.remove(claims, removal::Volume::Left).await?;
                Ok(Vec::new())
            }
        }
    }

    async fn tried(
        &self,
        Tried { claim, next }: &Tried<'_>,
        watch: &PodWatch,
    ) -> Result<Option<String>, Stop> {
        let (run, migration) = (self.run, *claim);
        let record = &migration.record;
        let (claim, name) = (record.claim.to_string(), migration.staging_name());
        let modes = access_modes(&record.manifest, Heading::Destination);
        let made = Box::pin(async {
            let (staging, placement) = early::ask(run, migration, watch).await?;
            early::provisioned(run, migration, &staging).await?;
            let mover = early::start(run, migration, watch, &placement);
            join(mover, self.ask_for_next(next.as_ref())).await.0
        });
        let namespace = &record.claim.namespace;
        match attempt::patiently(self.run, namespace, &name, made).await {
            Ok(mover) => {
                let node = mover.spec.and_then(|spec| spec.node_name);
                let what = words(modes, &record.manifest.volume_mode, node.as_deref());
                tracing::debug!(%claim, %what, "its mover has tried it, and it works");
                Ok(None)
            }
            Err(Stop::Refused(why)) => {
                let what = words(modes, &record.manifest.volume_mode, None);
                let why = format!("in vain: {why}");
                let class = &record.destination_class;
                Ok(Some(attempt::refused(class, &claim, &what, &why)))
            }
            Err(other) => Err(other),
        }
    }

    /// What keeps it from being asked for is its own group's to hear.
    async fn ask_for_next(&self, next: Option<&One<'_>>) {
        let Some(One { group, claim }) = next else {
            return;
        };
        let asked = async {
            let watch = group.watch()?;
            early::ask(self.run, claim, &watch).await
        };
        if let Err(why) = asked.await {
            tracing::debug!(claim = %claim.record.claim, %why, "its volume is not asked for yet");
        }
    }

    async fn remove(&self, claims: Vec<&Migration>, then: removal::Volume) -> Result<(), Stop> {
        let mut all: Vec<BoxFuture<_>> = Vec::new();
        for migration in claims {
            all.push(Box::pin(async move {
                let namespace = &migration.record.claim.namespace;
                removal::remove(self.run, namespace, &migration.staging_name(), then).await
            }));
        }
        try_join_all(all).await?;
        Ok(())
    }
}
