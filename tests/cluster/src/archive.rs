//! Image archives, as `docker load` and `ctr images import` read them: one layer, no registry.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What an image says about how it is run.
#[derive(Debug, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub labels: Vec<(String, String)>,
}

/// A file system layer in the making.
pub struct Archive(Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Archive {
    /// Adds a file of the host, with its mode, under another path.
    pub fn file(&mut self, source: &Path, path: &str) -> Result<()> {
        let content = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
        let mode = fs::metadata(source)?.permissions().mode() & 0o777;
        let mut header = header(EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content.as_slice())?;
        Ok(())
    }

    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.0.append_data(
            &mut header(EntryType::Directory, mode),
            path,
            std::io::empty(),
        )?;
        Ok(())
    }

    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.0
            .append_link(&mut header(EntryType::Symlink, 0o777), path, target)?;
        Ok(())
    }

    /// Writes the image under this name.
    pub fn write(self, name: &str, config: &ImageConfig, target: &Path) -> Result<()> {
        let layer = self.0.into_inner()?;
        let labels: serde_json::Map<_, _> = config
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": config.entrypoint,
                "Env": config.env,
                "User": config.user,
                "Labels": labels,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
            "history": [{"created_by": "pvmigrate test bed"}],
        }))?;
        let config_file = format!("{}.json", digest(&config));
        let manifest = serde_json::to_vec(&json!([{
            "Config": config_file,
            "RepoTags": [name],
            "Layers": ["layer.tar"],
        }]))?;

        let mut image = Builder::new(Vec::new());
        for (path, content) in [
            ("layer.tar", &layer),
            (&config_file, &config),
            ("manifest.json", &manifest),
        ] {
            let mut header = header(EntryType::Regular, 0o644);
            header.set_size(content.len() as u64);
            image.append_data(&mut header, path, content.as_slice())?;
        }
        // Renamed into place: whoever finds the file finds it whole.
        let partial = target.with_extension("partial");
        File::create(&partial)
            .and_then(|mut file| file.write_all(&image.into_inner()?))
            .and_then(|()| fs::rename(&partial, target))
            .with_context(|| format!("writing {}", target.display()))
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

pub(crate) fn digest(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
