//! The kinds of values that settings have, and how each is read. An error is the second half of a
//! sentence that begins with the setting and its value.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceRequirements, Toleration};
use kube::ResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

use crate::quantity::bytes;

/// With less, a mover would wait so long for its next 4 MiB that it seems to hang.
const LEAST_BANDWIDTH: u64 = 64 << 10;
/// More than a node has use for; a mover opens this many files at once.
const MOST_THREADS: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceVolumes {
    /// Released, with policy Retain: everything has a way back.
    #[default]
    Keep,
    /// Given to its provisioner to delete, once its application runs on the destination.
    Delete,
}

/// How a workload is frozen: the value `freeze`, and the annotation of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreezeBy {
    /// As is best for each: see `plan/method.rs`.
    #[default]
    Auto,
    Scale,
    Hold,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BarePods {
    #[default]
    Refuse,
    /// Deleted, and made again from their own manifests.
    Recreate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jobs {
    /// Until they are complete, as long as a freeze may take.
    #[default]
    Wait,
    /// Their pods are ended, and started again from the beginning.
    Suspend,
}

/// Whether the destination becomes the default class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetDefault {
    #[default]
    False,
    /// Unless a third class is the default: that is said and left.
    True,
    /// A third class is no longer the default either.
    Force,
}

/// What becomes of claim templates that name the old class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetTemplates {
    #[default]
    Report,
    /// The set is made again around its pods.
    Update,
}

/// One claim, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimName {
    pub namespace: String,
    pub name: String,
}

impl ClaimName {
    pub fn is(&self, claim: &PersistentVolumeClaim) -> bool {
        claim.namespace().as_deref() == Some(&self.namespace) && claim.name_any() == self.name
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ClaimName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.into(),
                    name: name.into(),
                })
            }
            _ => Err("write a claim as namespace/name".into()),
        }
    }
}

/// How large a claim is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeOf {
    /// None: every claim that is not named.
    pub claim: Option<ClaimName>,
    /// A Kubernetes quantity.
    pub size: String,
}

impl FromStr for SizeOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (claim, size) = text
            .split_once('=')
            .ok_or("write a size as namespace/name=20Gi, or *=20Gi for all claims")?;
        let claim = match claim {
            "*" => None,
            name => Some(name.parse()?),
        };
        Ok(Self {
            claim,
            size: quantity(size)?,
        })
    }
}

/// A number of bytes that a volume can have.
pub fn quantity(text: &str) -> Result<String, String> {
    match bytes(text) {
        Some(size) if size > 0 => Ok(text.into()),
        _ => Err("write a size as a quantity such as 20Gi".into()),
    }
}

/// A word of a list that the type itself knows.
pub fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<Error>::new(text)).map_err(|error| error.to_string())
}

pub fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a name is needed; leave the setting out for none".into());
    }
    Ok(text.into())
}

pub fn seconds(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("write a whole number of seconds, 1 or more".into()),
    }
}

pub fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "write a whole number, 1 or more".into())
}

pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= MOST_THREADS => Ok(threads),
        _ => Err(format!(
            "write a number of threads from 1 to {MOST_THREADS}"
        )),
    }
}

pub fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    bytes(text)
        .and_then(|bytes| NonZeroU64::new(u64::try_from(bytes).ok()?))
        .filter(|bytes| bytes.get() >= LEAST_BANDWIDTH)
        .ok_or_else(|| {
            "it is no number of bytes a second, or less than 64Ki: write it as a quantity such as 50Mi, or leave it empty for no limit".into()
        })
}

pub fn resources(text: &str) -> Result<ResourceRequirements, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a ResourceRequirements: {error}"))
}

/// Tolerations of a pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Tolerations(pub Vec<Toleration>);

pub fn tolerations(text: &str) -> Result<Tolerations, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a list of Tolerations: {error}"))
}

/// Labels or annotations.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Strings(pub BTreeMap<String, String>);

pub fn strings(text: &str) -> Result<Strings, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not an object of texts: {error}"))
}
