//! The Secret that the CA is kept in, so that all replicas and the Job agree on it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use pvmigrate_record::names;
use tokio::time::{Instant, sleep};

use crate::authority::{self, Authority};
use crate::config::Config;
use crate::rotation::{Change, Ring};

mod form;

/// How long a start waits for the API server, and for the collection of a Secret that an
/// uninstalled release left.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Where the CA lies, and who owns it. The owner is the webhook's Deployment: the Secret is
/// collected with it.
pub struct Store {
    secrets: Api<Secret>,
    deployments: Api<Deployment>,
    config: Config,
}

/// The Secret as it was read.
struct Stored {
    ring: Ring,
    secret: Secret,
    is_ours: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Secret {name} has no text under {key}: delete it, and a new one is made")]
    Incomplete { name: String, key: &'static str },
    #[error("the CA in Secret {name} cannot be used: delete it, and a new one is made")]
    Unusable {
        name: String,
        source: authority::Error,
    },
    #[error("Secret {0} belongs to a Deployment that is gone, and was not collected")]
    Abandoned(String),
    #[error("the Deployment {0}, which owns the CA, has no UID")]
    NoOwner(String),
    #[error("Secret {name} cannot be read or made")]
    Api { name: String, source: kube::Error },
}

impl Store {
    pub fn new(client: Client, config: Config) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &config.namespace),
            deployments: Api::namespaced(client, &config.namespace),
            config,
        }
    }

    /// The CA of this release, made if there is none. Of several replicas that make one at the
    /// same time, the first wins.
    ///
    /// A Secret left by an earlier release of the same name is not taken: its owner is gone, it
    /// will be collected, and a certificate from it would be worth nothing.
    pub async fn load_or_create(&self) -> Result<Ring, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.attempt(Timestamp::now()).await {
                Err(error @ (Error::Api { .. } | Error::Abandoned(_)))
                    if Instant::now() < deadline =>
                {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "there is no CA yet"
                    );
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn attempt(&self, now: Timestamp) -> Result<Ring, Error> {
        match self.load(now).await? {
            Some(stored) => self.renew(stored, now).await,
            None => self.save(Ring::alone(self.make(now)?), now).await,
        }
    }

    /// Reads the Secret again, and writes what is due: what lies there counts.
    ///
    /// Where nothing does, somebody has deleted it. What is `held` is put back, so that
    /// configurations that name it stay true, and it gives way to another.
    pub async fn keep(&self, held: &Ring, now: Timestamp) -> Result<Ring, Error> {
        let Some(stored) = self.load(now).await? else {
            let back = match &held.next {
                None => held.begun(self.make(now)?),
                Some(_) => held.clone(),
            };
            return self.save(back, now).await;
        };
        let ring = stored.ring.clone();
        match self.renew(stored, now).await {
            Err(error @ Error::Api { .. }) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the CA is due, and cannot be written");
                Ok(ring)
            }
            result => result,
        }
    }

    async fn load(&self, now: Timestamp) -> Result<Option<Stored>, Error> {
        let name = &self.config.ca_secret;
        let found = self.secrets.get_opt(name).await;
        let Some(secret) = found.map_err(|source| self.api(source))? else {
            return Ok(None);
        };
        let owner = secret.owner_references().first().cloned();
        if let Some(owner) = &owner
            && (secret.metadata.deletion_timestamp.is_some()
                || owner.uid != self.owner().await?.uid)
        {
            return Err(Error::Abandoned(name.clone()));
        }
        let ring = form::read(&secret, name)?;
        // One without an owner is somebody's own, and is taken as it is.
        let is_ours = owner.is_some();
        if !is_ours && ring.current.expires <= now {
            return Err(self.unusable(authority::Error::Expired(ring.current.expires)));
        }
        Ok(Some(Stored {
            ring,
            secret,
            is_ours,
        }))
    }

    /// Writes what is due. Of several replicas the first wins: the others find that the Secret has
    /// changed, and take what it holds.
    async fn renew(&self, stored: Stored, now: Timestamp) -> Result<Ring, Error> {
        let Stored {
            ring,
            mut secret,
            is_ours,
        } = stored;
        let Some(change) = ring.change(&self.config.lives(), now) else {
            return Ok(ring);
        };
        let name = &self.config.ca_secret;
        if !is_ours {
            tracing::warn!(secret = name, expires = %ring.current.expires, asked = ring.is_asked(), "the CA is somebody's own, and theirs to renew");
            return Ok(ring);
        }
        let wanted = match change {
            Change::Begin => ring.begun(self.make(now)?),
            Change::Finish => ring.finished(),
            Change::Replace => Ring::alone(self.make(now)?),
        };
        secret.data = Some(form::data(&wanted));
        if let Some(obeyed) = &wanted.obeyed {
            let annotations = secret.metadata.annotations.get_or_insert_default();
            annotations.insert(names::ROTATED.into(), obeyed.clone());
        }
        // It carries the UID and the resourceVersion that this was decided on.
        let params = PostParams::default();
        match self.secrets.replace(name, &params, &secret).await {
            Ok(_) => {
                tracing::info!(secret = name, ?change, "the CA was renewed");
                Ok(wanted)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                match self.load(now).await? {
                    Some(stored) => Ok(stored.ring),
                    None => Ok(ring),
                }
            }
            Err(error) => Err(self.api(error)),
        }
    }

    async fn save(&self, ring: Ring, now: Timestamp) -> Result<Ring, Error> {
        let name = &self.config.ca_secret;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([
                    ("app.kubernetes.io/name".into(), "pvmigrate".into()),
                    (
                        "app.kubernetes.io/instance".into(),
                        self.config.release.clone(),
                    ),
                ])),
                owner_references: Some(vec![self.owner().await?]),
                ..ObjectMeta::default()
            },
            data: Some(form::data(&ring)),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(secret = name, "the CA was written");
                Ok(Ring {
                    asked: None,
                    obeyed: None,
                    ..ring
                })
            }
            // Another replica was first (409), unless its Secret has gone again by now.
            Err(error @ kube::Error::Api(_)) => match self.load(now).await? {
                Some(stored) => Ok(stored.ring),
                None => Err(self.api(error)),
            },
            Err(error) => Err(self.api(error)),
        }
    }

    fn make(&self, now: Timestamp) -> Result<Authority, Error> {
        let life = self.config.lives().authority;
        Authority::create(&self.config.ca_secret, life, now).map_err(|source| self.unusable(source))
    }

    async fn owner(&self) -> Result<OwnerReference, Error> {
        let found = self.deployments.get(&self.config.owner).await;
        let deployment = found.map_err(|source| self.api(source))?;
        deployment
            .owner_ref(&())
            .filter(|owner| !owner.uid.is_empty())
            .ok_or_else(|| Error::NoOwner(self.config.owner.clone()))
    }

    fn api(&self, source: kube::Error) -> Error {
        Error::Api {
            name: self.config.ca_secret.clone(),
            source,
        }
    }

    fn unusable(&self, source: authority::Error) -> Error {
        Error::Unusable {
            name: self.config.ca_secret.clone(),
            source,
        }
    }
}

#[cfg(test)]
pub mod tests;
