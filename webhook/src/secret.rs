//! The Secret that the CA is kept in, so that all replicas and the Job agree on it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::authority::{self, Authority};
use crate::config::Config;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

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
    pub async fn load_or_create(&self) -> Result<Authority, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.attempt().await {
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

    async fn attempt(&self) -> Result<Authority, Error> {
        if let Some(authority) = self.load().await? {
            return Ok(authority);
        }
        let now = Timestamp::now();
        let made = Authority::create(&self.config.ca_secret, now)
            .map_err(|source| self.unusable(source))?;
        self.save(&made).await
    }

    /// Reads the Secret again: what lies there counts, and where nothing does, `held` is put
    /// back, so that configurations that name it stay true.
    pub async fn keep(&self, held: &Authority) -> Result<Authority, Error> {
        match self.load().await? {
            Some(authority) => Ok(authority),
            None => self.save(held).await,
        }
    }

    async fn load(&self) -> Result<Option<Authority>, Error> {
        let name = &self.config.ca_secret;
        let found = self.secrets.get_opt(name).await;
        let Some(secret) = found.map_err(|source| self.api(source))? else {
            return Ok(None);
        };
        // One without an owner is somebody's own, and is taken as it is.
        if let Some(owner) = secret.owner_references().first()
            && (secret.metadata.deletion_timestamp.is_some()
                || owner.uid != self.owner().await?.uid)
        {
            return Err(Error::Abandoned(name.clone()));
        }
        let text = |key| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            text.ok_or_else(|| Error::Incomplete {
                name: name.clone(),
                key,
            })
        };
        Authority::parse(text(CERTIFICATE)?, text(KEY)?, Timestamp::now())
            .map(Some)
            .map_err(|source| self.unusable(source))
    }

    async fn save(&self, authority: &Authority) -> Result<Authority, Error> {
        let name = &self.config.ca_secret;
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
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
            data: Some(BTreeMap::from([
                (CERTIFICATE.into(), bytes(&authority.certificate)),
                (KEY.into(), bytes(&authority.key)),
            ])),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(secret = name, "the CA was written");
                Ok(authority.clone())
            }
            // Another replica was first (409), unless its Secret has gone again by now.
            Err(error @ kube::Error::Api(_)) => match self.load().await? {
                Some(authority) => Ok(authority),
                None => Err(self.api(error)),
            },
            Err(error) => Err(self.api(error)),
        }
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
mod tests;
