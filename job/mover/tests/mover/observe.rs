//! What the system's own tools say of a tree. Nothing here is the engine's code.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{SeekFrom, seek};

/// Everything that an application can see of each path, as text.
pub type Observation = BTreeMap<String, Vec<String>>;

/// Looks at a tree, through a mount that does not record it.
pub fn observe(root: &Path) -> Observation {
    let mut seen = Observation::new();
    let mut inodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let format = r"%P\0%y\0%m\0%U:%G\0%s\0%T@\0%A@\0%l\0%i\0";
    let listing = run(root, "find", &prune(&["-printf", format]));
    let fields: Vec<String> = split(&listing, 0);
    let names = ["type", "mode", "owner", "size", "mtime", "atime", "target"];
    for entry in fields.chunks_exact(9) {
        let mut lines: Vec<String> = names
            .iter()
            .zip(&entry[1..8])
            // How large a directory is says nothing of what is in it.
            .filter(|(name, _)| **name != "size" || entry[1] != "d")
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if entry[1] != "d" {
            inodes
                .entry(entry[8].clone())
                .or_default()
                .push(entry[0].clone());
        }
        lines.sort();
        seen.insert(entry[0].clone(), lines);
    }
    for names in inodes.values_mut() {
        names.sort();
        for name in names.iter() {
            add(&mut seen, name, format!("same as {names:?}"));
        }
    }
    for (tool, arguments) in [
        ("stat", &["-c", "%n|device %t:%T"][..]),
        ("lsattr", &["-p", "-d"][..]),
    ] {
        let kinds = if tool == "stat" { "b,c" } else { "f,d" };
        let mut all = vec!["-type", kinds, "-exec", tool];
        all.extend(arguments);
        all.extend(["{}", "+"]);
        let lines = run(root, "find", &prune(&all));
        for line in split(&lines, b'\n') {
            if tool == "stat" {
                let (name, device) = line.split_once('|').unwrap();
                add(&mut seen, strip(name), device.to_owned());
            } else if let Some((project, rest)) = line.trim_start().split_once(' ')
                && let Some((flags, name)) = rest.split_once(' ')
            {
                // The rest is how a file system stores it, and no application's choice.
                let flags: String = flags.chars().filter(|c| "iaAdSDC".contains(*c)).collect();
                for (what, value, none) in
                    [("flags", flags.as_str(), ""), ("project", project, "0")]
                {
                    if value != none {
                        add(&mut seen, strip(name), format!("{what} {value}"));
                    }
                }
            }
        }
    }
    let sums = run(
        root,
        "find",
        &prune(&["-type", "f", "-exec", "sha256sum", "-z", "{}", "+"]),
    );
    for line in split(&sums, 0) {
        // Without files there is one empty line.
        if let Some((sum, name)) = line.split_once("  ") {
            add(&mut seen, strip(name), format!("content {sum}"));
        }
    }
    xattrs(root, &mut seen);
    seen
}

/// Compares two observations and lists all that differs.
pub fn differences(left: &Observation, right: &Observation) -> Vec<String> {
    let mut found = Vec::new();
    for path in left
        .keys()
        .chain(right.keys().filter(|path| !left.contains_key(*path)))
    {
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => {
                found.extend(
                    a.iter()
                        .filter(|line| !b.contains(line))
                        .map(|line| format!("{path}: only left: {line}")),
                );
                found.extend(
                    b.iter()
                        .filter(|line| !a.contains(line))
                        .map(|line| format!("{path}: only right: {line}")),
                );
            }
            (Some(_), None) => found.push(format!("{path}: only left")),
            (None, _) => found.push(format!("{path}: only right")),
        }
    }
    found
}

/// The stretches of data of a file: begin and end, in bytes.
pub fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push((start, at));
    }
    found
}

/// The files that have much more allocated than their namesakes on the left, or much less.
pub fn allocated_otherwise(left: &Path, right: &Path) -> Vec<String> {
    /// What file systems round and prepare differently, in bytes.
    const SLACK: u64 = 256 * 1024;
    let sizes = |root| -> BTreeMap<String, u64> {
        let listing = run(
            root,
            "find",
            &prune(&["-type", "f", "-printf", r"%P\0%b\0"]),
        );
        split(&listing, 0)
            .chunks_exact(2)
            .map(|file| (file[0].clone(), file[1].parse::<u64>().unwrap() * 512))
            .collect()
    };
    let right = sizes(right);
    sizes(left)
        .into_iter()
        .filter(|(path, left)| right[path].abs_diff(*left) > SLACK + left / 8)
        .map(|(path, left)| format!("{path}: {left} bytes left, {} right", right[&path]))
        .collect()
}

fn xattrs(root: &Path, seen: &mut Observation) {
    let dump = run(
        root,
        "getfattr",
        &["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."],
    );
    let mut path = String::new();
    for line in split(&dump, b'\n') {
        if let Some(name) = line.strip_prefix("# file: ") {
            path = unescaped(strip(name));
        } else if seen.contains_key(&path)
            // XFS shows what it makes of an ACL once more; the ACL itself is there too.
            && !line.starts_with("trusted.SGI_ACL_")
            && !line.starts_with("security.selinux")
        {
            add(seen, &path.clone(), format!("xattr {line}"));
        }
    }
}

/// getfattr writes some bytes of a name in octal.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    text(&bytes)
}

fn add(seen: &mut Observation, path: &str, line: String) {
    // lsattr and stat print a name with a newline on two lines; find has all of it.
    if let Some(lines) = seen.get_mut(path) {
        lines.push(line);
    }
}

fn strip(name: &str) -> &str {
    if name == "." {
        ""
    } else {
        name.strip_prefix("./").unwrap_or(name)
    }
}

fn prune<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![".", "-path", "./lost+found", "-prune", "-o"];
    arguments.extend(rest);
    arguments
}

fn run(root: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&stderr);
    // lsattr says so of file systems without flags.
    let harmless = complaint.contains("While reading ");
    assert!(status.success() || harmless, "{program}: {complaint}");
    stdout
}

fn split(bytes: &[u8], at: u8) -> Vec<String> {
    let end = bytes.strip_suffix(&[at]).unwrap_or(bytes);
    end.split(|&byte| byte == at)
        .map(text)
        .filter(|line| at == 0 || !line.is_empty())
        .collect()
}

/// One character a byte, so that names that are not UTF-8 stay apart.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
