package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Volume is what is known of a volume. It exists from when this is written until this is gone; its
// bytes come before and go after.
type Volume struct {
	ID         string
	Name       string
	Capacity   int64
	Block      bool
	FileSystem string     `json:",omitempty"`
	Parameters parameters // of its class, as they were when it was created
	Claim      string     `json:",omitempty"` // NAMESPACE/NAME
	Source     string     `json:",omitempty"` // snapshot:ID or volume:ID
	Node       string     `json:",omitempty"` // the only node that it can be attached to
	Zone       string     `json:",omitempty"` // the only zone
	// Node to whether it is attached for reading only.
	Attached map[string]bool `json:",omitempty"`
	// Its file system may be smaller than its file: grown when it is mounted next.
	Grow bool `json:",omitempty"`
}

// Snapshot is a copy of a volume's bytes.
type Snapshot struct {
	ID, Name, Volume string
	Capacity         int64
	Block            bool
	FileSystem       string `json:",omitempty"`
	Created          int64  // seconds
}

// store keeps one file of JSON for each object.
type store struct {
	folder string
	mutex  sync.Mutex
}

func openStore(folder string) (*store, error) {
	for _, name := range []string{"volumes", "snapshots", "faults"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			return nil, err
		}
	}
	return &store{folder: folder}, nil
}

var plain = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,99}$`)

// idOf makes a name that can be a file's name out of any; Kubernetes' own are such names.
func idOf(name string) string {
	if plain.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "x-" + hex.EncodeToString(sum[:16])
}

func (s *store) image(kind, id string) string {
	return filepath.Join(s.folder, kind, id+".img")
}

func (s *store) record(kind, id string) string {
	return filepath.Join(s.folder, kind, id+".json")
}

func (s *store) volume(id string) (*Volume, error) {
	return load[Volume](s, "volumes", id)
}

func (s *store) snapshot(id string) (*Snapshot, error) {
	return load[Snapshot](s, "snapshots", id)
}

func (s *store) volumes() ([]*Volume, error) { return list[Volume](s, "volumes") }

func (s *store) snapshots() ([]*Snapshot, error) { return list[Snapshot](s, "snapshots") }

// load returns NotFound where there is no such object, whatever was asked for.
func load[T any](s *store, kind, id string) (*T, error) {
	missing := status.Errorf(codes.NotFound, "there is no %s in %s", id, kind)
	if !plain.MatchString(id) {
		return nil, missing
	}
	data, err := os.ReadFile(s.record(kind, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	object := new(T)
	if err := json.Unmarshal(data, object); err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.record(kind, id), err)
	}
	return object, nil
}

// list is in the order of ids.
func list[T any](s *store, kind string) ([]*T, error) {
	paths, err := filepath.Glob(filepath.Join(s.folder, kind, "*.json"))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	var all []*T
	for _, path := range paths {
		object, err := load[T](s, kind, strings.TrimSuffix(filepath.Base(path), ".json"))
		if status.Code(err) == codes.NotFound {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, object)
	}
	return all, nil
}

func (s *store) save(kind, id string, object any) error {
	data, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return err
	}
	partial := s.record(kind, id) + ".partial"
	if err := os.WriteFile(partial, data, 0o600); err != nil {
		return err
	}
	return os.Rename(partial, s.record(kind, id))
}

// change reads a volume, changes it and writes it, as one.
func (s *store) change(id string, change func(*Volume) error) (*Volume, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	volume, err := s.volume(id)
	if err != nil {
		return nil, err
	}
	if err := change(volume); err != nil {
		return nil, err
	}
	return volume, s.save("volumes", id, volume)
}

// remove succeeds where there is nothing any more.
func (s *store) remove(kind, id string) error {
	for _, path := range []string{s.record(kind, id), s.image(kind, id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
