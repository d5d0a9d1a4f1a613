package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// calls are what can be slow or fail. Two sources say which: parameters of a volume's class, for
// the volume's whole life (slowDetach, failDelete), and files of the faults folder, from when one is
// there until it is gone:
//
//	{"call": "Attach", "claim": "NAMESPACE/NAME", "fail": "out of slots"}
//	{"call": "Create", "claim": "NAMESPACE/NAME", "fail": "no space", "code": "RESOURCE_EXHAUSTED"}
//	{"call": "Detach", "volume": "pvc-…", "slow": "10s"}
//
// A rule without claim and volume holds for all. A slow call's time counts from its first try: one
// that the caller gave up is ready sooner when tried again, as a backend's work goes on.
var calls = []string{"Create", "Delete", "Attach", "Detach", "Stage", "Unstage", "Expand", "Snapshot"}

type faults struct {
	folder string
	mutex  sync.Mutex
	since  map[string]time.Time
}

type rule struct {
	Call, Claim, Volume, Slow, Fail string
	Code                            codes.Code
}

// before does what is to go wrong with a call, and is asked before the call does anything.
func (f *faults) before(ctx context.Context, call string, volume *Volume) error {
	rules := []rule{{
		Call: call,
		Slow: volume.Parameters["slow"+call],
		Fail: volume.Parameters["fail"+call],
	}}
	if call == "Create" && volume.Parameters["full"] == "true" {
		rules = append(rules, rule{Call: call, Fail: "the pool is full", Code: codes.ResourceExhausted})
	}
	written, err := f.written()
	if err != nil {
		return err
	}
	for _, rule := range append(rules, written...) {
		if !rule.holds(call, volume) {
			continue
		}
		if rule.Slow != "" {
			if err := f.wait(ctx, call+" "+volume.ID, rule.Slow); err != nil {
				return err
			}
		}
		if rule.Fail != "" {
			return status.Errorf(rule.code(), "%s fails as asked: %s", call, rule.Fail)
		}
	}
	// The next call of the kind is a new one.
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.since, call+" "+volume.ID)
	return nil
}

func (r rule) holds(call string, volume *Volume) bool {
	return r.Call == call &&
		(r.Claim == "" || r.Claim == volume.Claim) &&
		(r.Volume == "" || r.Volume == volume.ID)
}

func (r rule) code() codes.Code {
	if r.Code == codes.OK {
		return codes.Internal
	}
	return r.Code
}

func (f *faults) written() ([]rule, error) {
	paths, err := filepath.Glob(filepath.Join(f.folder, "*.json"))
	if err != nil {
		return nil, err
	}
	var rules []rule
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // lifted since
		}
		if err != nil {
			return nil, err
		}
		var one rule
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		rules = append(rules, one)
	}
	return rules, nil
}

func (f *faults) wait(ctx context.Context, key, slow string) error {
	long, err := time.ParseDuration(slow)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "%q is no duration", slow)
	}
	f.mutex.Lock()
	if f.since == nil {
		f.since = map[string]time.Time{}
	}
	if _, tried := f.since[key]; !tried {
		f.since[key] = time.Now()
	}
	until := f.since[key].Add(long)
	f.mutex.Unlock()
	select {
	case <-time.After(time.Until(until)):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
