//! A tree with everything in it that a copy can lose.

use std::os::unix::net::UnixListener;

use crate::volume::Volume;

const TREE: &str = r#"
umask 022
# content and holes
printf hello > plain
: > empty
head -c 3000001 /dev/urandom > big
head -c 65536 /dev/urandom > block
truncate -s 160M sparse
printf middle | dd of=sparse bs=64K seek=800 conv=notrunc status=none
head -c 65536 /dev/urandom | dd of=sparse bs=64K seek=2000 conv=notrunc status=none
truncate -s 10M hole-only
truncate -s 3M hole-at-the-end; head -c 65536 /dev/urandom | dd of=hole-at-the-end conv=notrunc status=none
fallocate -l 4M reserved; printf x | dd of=reserved conv=notrunc status=none
dd if=/dev/zero of=written-zeros bs=1M count=2 status=none
# directories and modes
mkdir -p dir/empty 'dir/with space' dir/deeper/still
printf child > dir/deeper/still/child
for mode in 0000 0200 0444 0555 0644 4755 2755 6711 1644 7777; do
  printf $mode > mode-$mode; chmod $mode mode-$mode
  mkdir dir-$mode; printf x > dir-$mode/in; chmod $mode dir-$mode
done
# owners
printf owned > owned; chown 1234:4321 owned; chmod 6750 owned
mkdir owned-dir; chown 4000000000:4000000001 owned-dir; chmod 2770 owned-dir; printf x > owned-dir/x
# hard links
printf linked > link-a; ln link-a link-b; ln link-a dir/link-c
ln -s /nowhere sym-a; ln -P sym-a sym-b
mkfifo -m 0640 fifo-a; ln fifo-a fifo-b
ln socket-a socket-b
mknod char-a c 1 3; ln char-a dir/char-b
mknod -m 0660 block-a b 7 200; chown 5:6 block-a; ln block-a block-b
printf also-linked > other-a; ln other-a other-b
# symlinks
ln -s plain sym-relative; ln -s "$(printf 'x%.0s' {1..1000})" sym-long; ln -s $'to\xff' sym-bytes
chown -h 11:12 sym-relative
# names
printf 1 > $'bytes\xff\xfe\x80'; printf 2 > $'new\nline'; printf 3 > -dash; printf 4 > "$(printf 'n%.0s' {1..255})"
printf 5 > 'back\slash'; printf 6 > 'ümläut 🎉'; mkdir $'dir\xc3'; printf 7 > $'dir\xc3/in'
mkdir lost; mkdir dir/lost+found; printf 8 > dir/lost+found/mine
# extended attributes
printf x > attributed
setfattr -n user.one -v 1 attributed; setfattr -n user.empty attributed
setfattr -n user.big -v "$(printf 'v%.0s' {1..1500})" attributed; setfattr -n trusted.bytes -v 0x00ff00 attributed
setfattr -n user.dir -v d dir; setfattr -n trusted.t -v d dir
for special in sym-a fifo-a socket-a char-a block-a; do setfattr -h -n trusted.special -v $special $special; done
setfattr -n security.custom -v s plain
# ACLs: a mask that is not the group's, on files and specials, defaults whose children have none
printf x > acl; chmod 0640 acl; setfacl -m u:1234:rwx,g:55:r,m::rw acl
printf x > acl-masked; setfacl -m u:1:rwx,g::rwx,m::- acl-masked
printf x > acl-setgid; setfacl -m u:1:rwx acl-setgid; chown 3:4 acl-setgid; chmod g+s acl-setgid
setfacl -m u:9:rw fifo-a
mkdir acl-dir; printf x > acl-dir/before; mkdir acl-dir/before-dir; setfacl -d -m u:1234:rwx,g:7:-,m::rx acl-dir
setfacl -m g:8:rx acl-dir; printf x > acl-dir/after; mkdir acl-dir/after-dir
printf x > acl-dir/without; setfacl -b acl-dir/without; chmod 0604 acl-dir/without
# capabilities
printf x > capable; chown 1234:1234 capable; chmod 0750 capable; setcap cap_net_raw,cap_chown+ep capable
# times, after everything else
find . -path ./lost+found -prune -o -exec touch -h -d '2011-01-01 01:01:01.000000001' {} +
touch -h -d '2001-02-03 04:05:06.123456789' plain sym-a dir fifo-a socket-a char-a
touch -h -a -d '2002-03-04 05:06:07.987654321' plain sym-a dir big sym-relative
touch -d '1960-01-01 00:00:00.999999999' empty; touch -d '2099-12-31 23:59:59.5' block
# the root itself
chown 77:88 .; setfacl -d -m u:5:rwx .; setfattr -n user.root -v r .; chmod 3771 .
touch -d '2005-05-05 05:05:05.050505050' .
"#;

/// What not every file system has.
const FLAGS: &str = r"
printf x > immutable; ln immutable immutable-too; printf x > append-only
mkdir immutable-dir; printf x > immutable-dir/in
for flag in $(fold -w1 <<< $flags); do
  printf x > flag-$flag; mkdir flag-$flag-dir; printf x > flag-$flag-dir/without; mkdir flag-$flag-dir/dir-without
done
find -newermt 2020-01-01 -not -newermt 2090-01-01 -exec touch -h -d '2003-01-01 00:00:00.000000003' {} +
touch -d '2005-05-05 05:05:05.050505050' .
for flag in $(fold -w1 <<< $flags); do
  [ $flag = D ] || chattr +$flag flag-$flag
  chattr +$flag flag-$flag-dir
done
chattr +i immutable immutable-dir; chattr +a append-only
";

/// The root's own is 0, so these are nobody's but the application's.
const PROJECTS: &str = r"
printf x > project; mkdir project-dir; printf x > project-dir/without
touch -d '2004-01-01' project project-dir project-dir/without
touch -d '2005-05-05 05:05:05.050505050' .
chattr -p 4242 project; chattr -p 4294967294 project-dir
";

pub fn plant(volume: &Volume) {
    // Its name stays when the listener is closed.
    drop(UnixListener::bind(volume.path.join("socket-a")).unwrap());
    volume.run(TREE);
}

/// `i`, `a` and these, on files, on directories, and not on what is in those.
pub fn plant_flags(volume: &Volume, flags: &str) {
    volume.run(&format!("flags={flags}; {FLAGS}"));
}

pub fn plant_projects(volume: &Volume) {
    volume.run(PROJECTS);
}
