//! Definitions of custom resources, as the Go module that serves them has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::Bed;
use crate::archive::digest;
use crate::bed::write;
use crate::command::run;
use crate::programs::module_folder;

pub struct Definitions {
    /// A folder of `tests/cluster/go`, whose versions count.
    pub module: &'static str,
    /// The Go module that has the files in `config/crd`.
    pub source: &'static str,
    pub files: &'static [&'static str],
}

impl Definitions {
    /// All of them in one file of the cache: Go may have forgotten the module since.
    pub fn ensure(&self, bed: &Bed) -> Result<PathBuf> {
        let module = module_folder(self.module);
        let sums = module.join("go.sum");
        let sums = fs::read(&sums).with_context(|| format!("reading {}", sums.display()))?;
        let name = format!("{}-definitions-{:.8}.yaml", self.module, digest(&sums));
        let cached = bed.cache.join(name);
        if cached.exists() {
            return Ok(cached);
        }
        let source = run(Command::new("go")
            .args(["list", "-m", "-f", "{{.Dir}}", self.source])
            .env_remove("GOFLAGS")
            .current_dir(module))?;
        let mut all = String::new();
        for file in self.files {
            let path = Path::new(source.trim()).join("config/crd").join(file);
            all += &fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            all += "\n---\n";
        }
        let partial = cached.with_extension("partial");
        write(&partial, all)?;
        fs::rename(&partial, &cached).with_context(|| format!("writing {}", cached.display()))?;
        Ok(cached)
    }
}
