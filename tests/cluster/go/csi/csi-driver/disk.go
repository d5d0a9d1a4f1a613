package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const mib = 1 << 20

// leastOf is the smallest size that each file system can have: mkfs.xfs of Debian refuses 300 MB, and
// the kernel does not resize btrfs to less than 256 MiB.
var leastOf = map[string]int64{"ext4": mib, "xfs": 301 * mib, "btrfs": 256 * mib}

// command runs to its end; what it complained about is the error.
func command(ctx context.Context, name string, arguments ...string) (string, error) {
	output, err := exec.CommandContext(ctx, name, arguments...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", status.Errorf(codes.Internal, "%s %s: %v: %s",
			name, strings.Join(arguments, " "), err, strings.TrimSpace(string(failed.Stderr)))
	}
	return string(output), err
}

// device is the loop device of a file, or "" where it has none. There is never more than one: two
// would be two views of one file system that know nothing of each other.
func device(ctx context.Context, image string) (string, error) {
	output, err := command(ctx, "losetup", "--noheadings", "--output", "NAME", "--associated", image)
	return strings.TrimSpace(output), err
}

// attach gives a file a loop device, unless it has one.
func attach(ctx context.Context, image string) (string, error) {
	existing, err := device(ctx, image)
	if err != nil || existing != "" {
		return existing, err
	}
	output, err := command(ctx, "losetup", "--find", "--show", image)
	return strings.TrimSpace(output), err
}

// detach takes a file's loop device away. Where a lost node still has it open, the kernel does so
// when that ends.
func detach(ctx context.Context, image string) error {
	existing, err := device(ctx, image)
	if err != nil || existing == "" {
		return err
	}
	_, err = command(ctx, "losetup", "--detach", existing)
	return err
}

// format makes a file system on a device that has none, and leaves one that is there as it is.
func format(ctx context.Context, device, kind string) error {
	// 2 is "nothing found"; every other failure could hide data.
	found, err := exec.CommandContext(ctx, "blkid", "--probe", "--match-tag", "TYPE", "--output", "value", device).Output()
	var failed *exec.ExitError
	if err != nil && (!errors.As(err, &failed) || failed.ExitCode() != 2) {
		return err
	}
	existing := strings.TrimSpace(string(found))
	if existing == kind {
		return nil
	}
	if existing != "" {
		return status.Errorf(codes.FailedPrecondition, "%s holds %s, not %s", device, existing, kind)
	}
	quiet := map[string][]string{"ext4": {"-q", "-m", "0"}, "xfs": {"-q"}, "btrfs": {"-q"}}
	_, err = command(ctx, "mkfs."+kind, append(quiet[kind], device)...)
	return err
}

// grow makes a mounted file system as large as its device. Where root has no CAP_SYS_RESOURCE, the
// kernel does not grow a mounted ext4: that one then grows when it is mounted next, which is what the
// code of the error tells the kubelet.
func grow(ctx context.Context, device, kind, point string) error {
	if _, err := command(ctx, "losetup", "--set-capacity", device); err != nil {
		return err
	}
	var err error
	switch kind {
	case "ext4":
		_, err = command(ctx, "resize2fs", device)
		if err != nil && strings.Contains(err.Error(), "Permission denied") {
			err = status.Errorf(codes.FailedPrecondition, "%v: it grows when it is mounted next", err)
		}
	case "xfs":
		_, err = command(ctx, "xfs_growfs", point)
	case "btrfs":
		_, err = command(ctx, "btrfs", "filesystem", "resize", "max", point)
	}
	return err
}

// growUnmounted does it before a mount, for ext4; the others can only grow mounted.
func growUnmounted(ctx context.Context, device, kind string) error {
	if kind != "ext4" {
		return nil
	}
	// Exit code 1 says that it was repaired; resize2fs wants a check, not a particular outcome.
	_, checked := command(ctx, "e2fsck", "-f", "-p", device)
	if _, err := command(ctx, "resize2fs", device); err != nil {
		return errors.Join(err, checked)
	}
	return nil
}

// create makes a sparse file, from nothing or from another file, and is done only when all of it
// is there.
func create(ctx context.Context, source, target string, size int64) error {
	partial := target + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if source != "" {
		if err := copyStill(ctx, source, partial); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(file.Truncate(size), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(partial, target)
}

// copyStill copies a volume as it is at one moment: a mounted file system is frozen meanwhile, and
// what a raw device has in memory is written first.
func copyStill(ctx context.Context, source, target string) error {
	used, points, err := inUse(ctx, source)
	if err != nil {
		return err
	}
	if used != "" {
		if len(points) > 0 {
			thaw, err := freeze(points[0])
			if err != nil {
				return err
			}
			defer thaw()
		} else if _, err := command(ctx, "blockdev", "--flushbufs", used); err != nil {
			return err
		}
	}
	_, err = command(ctx, "cp", "--sparse=always", "--reflink=auto", source, target)
	return err
}

const fifreeze, fithaw = 0xc0045877, 0xc0045878

// freeze stops all writing to a file system until the returned function is called.
func freeze(point string) (func(), error) {
	folder, err := os.Open(point)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(int(folder.Fd()), fifreeze, 0); err != nil {
		folder.Close()
		return nil, fmt.Errorf("freezing %s: %w", point, err)
	}
	return func() {
		// An error means that it is not frozen.
		_ = unix.IoctlSetInt(int(folder.Fd()), fithaw, 0)
		folder.Close()
	}, nil
}

// inUse is a file's device, if it has one, and where its file system is mounted.
func inUse(ctx context.Context, image string) (used string, points []string, err error) {
	used, err = device(ctx, image)
	if err != nil || used == "" {
		return "", nil, err
	}
	all, err := mounts()
	for _, one := range all {
		if one.source == used {
			points = append(points, one.point)
		}
	}
	return used, points, err
}

// thaw ends what a driver that died while it copied has frozen, or nobody could ever write again.
func thaw(ctx context.Context, image string) error {
	_, points, err := inUse(ctx, image)
	if err != nil || len(points) == 0 {
		return err
	}
	folder, err := os.Open(points[0])
	if err != nil {
		return err
	}
	defer folder.Close()
	// An error means that it is not frozen.
	_ = unix.IoctlSetInt(int(folder.Fd()), fithaw, 0)
	return nil
}

// resized sets a volume's size, and that of its device where it has one.
func resized(ctx context.Context, image string, size int64) error {
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	used, err := device(ctx, image)
	if err != nil || used == "" {
		return err
	}
	_, err = command(ctx, "losetup", "--set-capacity", used)
	return err
}
