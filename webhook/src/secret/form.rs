//! What the Secret holds, and under which keys.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use pvmigrate_record::names;

use super::Error;
use crate::authority::Authority;
use crate::rotation::Ring;

/// Every certificate that has to be believed: two of them during a rotation.
const CERTIFICATES: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_KEY: &str = "next.key";

pub fn read(secret: &Secret, name: &str) -> Result<Ring, Error> {
    let text = |key| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    let needed = |key| {
        text(key).ok_or_else(|| Error::Incomplete {
            name: name.into(),
            key,
        })
    };
    let (certificates, key) = (needed(CERTIFICATES)?, needed(KEY)?);
    let parse = |key| {
        Authority::parse(&certificates, key).map_err(|source| Error::Unusable {
            name: name.into(),
            source,
        })
    };
    let annotation = |key| secret.annotations().get(key).cloned();
    Ok(Ring {
        current: parse(key)?,
        next: text(NEXT_KEY).map(parse).transpose()?,
        asked: annotation(names::ROTATE),
        obeyed: annotation(names::ROTATED),
    })
}

pub fn data(ring: &Ring) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = BTreeMap::from([
        (CERTIFICATES.into(), bytes(&ring.certificates())),
        (KEY.into(), bytes(&ring.current.key)),
    ]);
    if let Some(next) = &ring.next {
        data.insert(NEXT_KEY.into(), bytes(&next.key));
    }
    data
}
