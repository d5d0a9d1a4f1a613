//! A file tree that is hard to copy, and a listing of all that can be seen of one: by the tools of
//! the applications' image, independent of the copy engine.

/// Fills the folder where it runs. Times come last: whatever is written later moves them.
pub const FILL: &str = r#"set -e
umask 022
mkdir tree && cd tree
mkdir -m 1777 sticky && mkdir -m 2775 shared && mkdir -p deep/er/and/deeper
chown 1000:2000 shared
printf 'plain' >plain && chown 1001:1002 plain && chmod 640 plain
printf '#!/bin/sh\n' >suid && chown 5:6 suid && chmod 6755 suid
printf 'no rights' >closed && chmod 000 closed
: >empty
head -c 1500000 /dev/urandom >random
truncate -s 32M sparse && printf 'middle' | dd of=sparse bs=1 seek=16777216 conv=notrunc status=none
truncate -s 5000000 hole
printf c >capable && setcap cap_net_raw+ep capable
setfattr -n user.note -v 'some note' plain
setfattr -n user.bytes -v 0x00ff80 random
setfattr -n user.dir -v d shared
setfacl -m u:7:r,g:8:rw plain
setfacl -m u:9:rwx,d:u:9:rwx,d:g:10:rx shared
printf 'below' >shared/inherits
ln random hard && ln random deep/er/hard-too
ln -s plain relative && ln -s /nowhere/at/all dangling && chown -h 12:13 dangling
mkfifo -m 640 pipe && chown 3:4 pipe
printf s >'with  spaces ' && printf n >"$(printf 'new\nline')" && printf b >"$(printf 'bytes-\377\376')"
printf d >-dash && printf q >"quote'\"\\"
for i in $(seq 40); do printf '%s' "$i" >"deep/er/and/deeper/$i"; done
touch -h -d '2001-02-03 04:05:06.123456789Z' plain dangling pipe sparse capable
touch -d '2031-01-01 00:00:00.000000001Z' deep/er/and/deeper/7
touch -d '1969-12-31 23:59:58.5Z' empty
touch -d '1999-12-31 23:59:59.987654321Z' deep shared sticky .
"#;

/// Prints the folder `tree`: names, types, modes, owners, sizes, modification times, targets of
/// links; contents; extended attributes; ACLs; which names are one file. Every name can be read,
/// and none can be mistaken for another: records end in ^@, and other bytes are written as by
/// `cat -v`.
pub const LIST: &str = r#"set -e
cd tree
{
  find . \( -type d -printf '%P|%y|%m|%U:%G|%T@\0' \) -o -printf '%P|%y|%m|%U:%G|%T@|%s|%l|%n\0' | sort -z
  echo; echo contents
  find . -type f -print0 | sort -z | xargs -0 sha256sum -z --
  echo; echo attributes
  find . -print0 | sort -z | xargs -0 getfattr --no-dereference --dump --match=- --encoding=hex --
  echo ACLs
  find . ! -type l -print0 | sort -z | xargs -0 getfacl --numeric --physical --
  echo links
  find . -type f -links +1 -print0 | sort -z | xargs -0 -I @ sh -c 'printf "%s:" "$1"; find . -samefile "$1" -print0 | sort -z; echo' sh @
} 2>&1 | cat -v
"#;

/// Prints the allocated KiB of files with holes: what is set aside differs by a few blocks between
/// file systems.
pub const HOLES: &str = "cd tree && stat -c '%n %b %B' sparse hole";

/// The first line in which two listings differ, to be read.
pub fn difference(before: &str, after: &str) -> Option<String> {
    // Records of the first part are on one line, each ended by a zero byte.
    let lines = |text: &str| {
        text.replace("^@", "\n")
            .lines()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let (before, after) = (lines(before), lines(after));
    let at = (0..before.len().max(after.len())).find(|&i| before.get(i) != after.get(i))?;
    Some(format!(
        "line {}: {:?} became {:?}",
        at + 1,
        before.get(at),
        after.get(at)
    ))
}
