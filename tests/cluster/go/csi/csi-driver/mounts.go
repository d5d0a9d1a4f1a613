package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

type mounted struct {
	root, point, kind, source string
}

// mounts of this machine, in the order in which they were made.
func mounts() ([]mounted, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mounted
	for line := range strings.Lines(string(table)) {
		// id parent device ROOT POINT options fields… - TYPE SOURCE options
		before, after, found := strings.Cut(line, " - ")
		first, last := strings.Fields(before), strings.Fields(after)
		if !found || len(first) < 6 || len(last) < 2 {
			continue
		}
		all = append(all, mounted{
			root:   unescape.Replace(first[3]),
			point:  unescape.Replace(first[4]),
			kind:   last[0],
			source: unescape.Replace(last[1]),
		})
	}
	return all, nil
}

// at is what is mounted at a path, or nil.
func at(path string) (*mounted, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].point == real {
			return &all[i], nil
		}
	}
	return nil, nil
}

// mountsOf are the places where a device's file system is mounted, or the device itself.
func mountsOf(device string) ([]string, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, one := range all {
		if one.source == device || one.kind == "devtmpfs" && "/dev"+one.root == device {
			points = append(points, one.point)
		}
	}
	return points, nil
}

// unmount succeeds where nothing is mounted any more. It never detaches lazily: an unmount that
// was answered is one after which nothing is written.
func unmount(path string) error {
	for {
		there, err := at(path)
		if err != nil || there == nil {
			return err
		}
		if err := unix.Unmount(path, 0); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}

// bind shows source at target, which exists.
func bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: target, Err: err}
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(&os.PathError{Op: "remount", Path: target, Err: err}, unmount(target))
	}
	return nil
}
