//! What is measured, and what it is to reach.

use pvmigrate_record::order::Level;

use crate::content::{Content, changed_of_device};
use crate::disk::Kind;
use crate::sizes::{Sizes, size, thousands};
use crate::tool::Tool;

pub const NAMES: [&str; 9] = [
    "small", "noop", "changed", "mixed", "dense", "sparse", "empty", "block", "delta",
];

/// At most 1.1 times the other's time.
const WITHIN_10_PERCENT: f64 = 1.0 / 1.1;

#[derive(Clone, Copy)]
pub enum Job {
    /// Everything, to an empty file system or a device of zeros.
    Copy(Content),
    /// The pass after a warm one that copied everything; nothing, or one part in a hundred,
    /// changed since.
    Final { content: Content, changed: bool },
}

impl Job {
    pub fn content(self) -> Content {
        match self {
            Job::Copy(content) | Job::Final { content, .. } => content,
        }
    }
}

/// Our time is to be at most the other's, divided by the factor.
#[derive(Clone, Copy)]
pub struct Goal {
    pub factor: f64,
    pub than: Tool,
}

/// What a level of verification is to reach; no goals if it is shown for comparison.
pub struct Ours {
    pub level: Level,
    pub goals: Vec<Goal>,
    /// MiB that resident memory stays under.
    pub memory: Option<u64>,
    /// Bytes to write at most.
    pub writes: Option<u64>,
}

impl Ours {
    fn new(level: Level, goals: &[(f64, Tool)]) -> Self {
        let goals = goals.iter().map(|&(factor, than)| Goal { factor, than });
        Ours {
            level,
            goals: goals.collect(),
            memory: None,
            writes: None,
        }
    }

    fn under(mut self, mib: u64) -> Self {
        self.memory = Some(mib);
        self
    }

    fn writing(mut self, bytes: u64) -> Self {
        self.writes = Some(bytes);
        self
    }

    fn names(&self, tool: Tool) -> bool {
        self.goals.iter().any(|goal| goal.than == tool)
    }
}

pub struct Row {
    pub name: &'static str,
    pub what: String,
    pub job: Job,
    pub ours: Vec<Ours>,
    pub peers: Vec<Tool>,
}

impl Row {
    /// In the order in which they take turns.
    pub fn tools(&self) -> impl Iterator<Item = Tool> {
        let ours = self.ours.iter().map(|ours| Tool::Mover(ours.level));
        ours.chain(self.peers.iter().copied())
    }
}

/// All works of the direction that begins with `from`. To keep the time in bounds, the way back
/// is without what would say little new, and has only the tools that a goal names.
pub fn rows(sizes: &Sizes, from: Kind) -> Vec<Row> {
    let forth = from == Kind::Ext4;
    let mut rows = trees(sizes);
    if forth {
        rows.extend(devices(sizes));
    } else {
        rows.retain(|row| !["sparse", "empty"].contains(&row.name));
        for row in &mut rows {
            let named = |tool: &Tool| row.ours.iter().any(|ours| ours.names(*tool));
            row.peers.retain(named);
        }
    }
    rows
}

fn trees(sizes: &Sizes) -> Vec<Row> {
    let small = thousands(sizes.small);
    let all = vec![Tool::Rsync, Tool::Cp, Tool::Tar];
    vec![
        Row {
            name: "small",
            what: format!("{small} × 4 KiB"),
            job: Job::Copy(Content::Small),
            ours: vec![
                Ours::new(Level::None, &[(2.2, Tool::Rsync)]),
                Ours::new(Level::Written, &[(1.0, Tool::Rsync)]),
            ],
            peers: all.clone(),
        },
        Row {
            name: "noop",
            what: format!("final pass, {small} files, none changed"),
            job: Job::Final {
                content: Content::Small,
                changed: false,
            },
            ours: vec![Ours::new(Level::Written, &[(4.0, Tool::Rsync)])],
            peers: vec![Tool::Rsync],
        },
        Row {
            name: "changed",
            what: format!("final pass, {small} files, 1 % changed"),
            job: Job::Final {
                content: Content::Small,
                changed: true,
            },
            ours: vec![Ours::new(Level::Written, &[(3.5, Tool::Rsync)])],
            peers: vec![Tool::Rsync],
        },
        Row {
            name: "mixed",
            what: format!("{} files of many sizes, deep", thousands(sizes.mixed)),
            job: Job::Copy(Content::Mixed),
            ours: vec![
                Ours::new(Level::None, &[(2.5, Tool::Rsync)]),
                Ours::new(Level::Written, &[]),
            ],
            peers: all.clone(),
        },
        Row {
            name: "dense",
            what: format!("2 × {}, dense", size(sizes.dense)),
            job: Job::Copy(Content::Dense),
            ours: vec![
                Ours::new(
                    Level::None,
                    &[(1.0, Tool::Cp), (WITHIN_10_PERCENT, Tool::Dd)],
                ),
                Ours::new(Level::Written, &[]),
            ],
            peers: vec![Tool::Rsync, Tool::Cp, Tool::Tar, Tool::Dd],
        },
        Row {
            name: "sparse",
            what: format!(
                "{} sparse, {} of data",
                size(sizes.sparse),
                size(sizes.sparse_data)
            ),
            job: Job::Copy(Content::Sparse),
            ours: vec![
                Ours::new(Level::None, &[(100.0, Tool::Rsync)]),
                Ours::new(Level::Written, &[(100.0, Tool::Rsync)]),
            ],
            peers: all,
        },
        Row {
            name: "empty",
            what: format!("{} empty files in one folder", thousands(sizes.empty)),
            job: Job::Copy(Content::Empty),
            ours: vec![Ours::new(Level::None, &[(3.0, Tool::Rsync)]).under(256)],
            peers: vec![Tool::Rsync],
        },
    ]
}

fn devices(sizes: &Sizes) -> [Row; 2] {
    let disk = size(sizes.disk);
    [
        Row {
            name: "block",
            what: format!("{disk} block volume"),
            job: Job::Copy(Content::Noise),
            ours: vec![
                Ours::new(Level::None, &[(WITHIN_10_PERCENT, Tool::Dd)]),
                Ours::new(Level::Written, &[]),
            ],
            peers: vec![Tool::Dd],
        },
        Row {
            name: "delta",
            what: format!("final pass, {disk} block volume, 1 % changed"),
            job: Job::Final {
                content: Content::Noise,
                changed: true,
            },
            ours: vec![Ours::new(Level::Written, &[]).writing(changed_of_device(sizes.disk))],
            peers: vec![Tool::Dd],
        },
    ]
}
