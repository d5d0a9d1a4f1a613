package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func volume(class map[string]string) *Volume {
	return &Volume{ID: "pvc-1", Claim: "here/data", Parameters: class}
}

func TestAClassesFaultsHoldForItsCallsOnly(t *testing.T) {
	faults := faults{folder: t.TempDir()}
	broken := volume(map[string]string{"failAttach": "no slot", "full": "true"})
	for call, code := range map[string]codes.Code{
		"Attach": codes.Internal, "Create": codes.ResourceExhausted, "Detach": codes.OK,
	} {
		if got := status.Code(faults.before(context.Background(), call, broken)); got != code {
			t.Errorf("%s ended with %v, not %v", call, got, code)
		}
	}
}

func TestAWrittenFaultHoldsForItsClaimAsLongAsItIsThere(t *testing.T) {
	faults := faults{folder: t.TempDir()}
	file := filepath.Join(faults.folder, "one.json")
	rule := `{"call": "Delete", "claim": "here/data", "fail": "gone", "code": "UNAVAILABLE"}`
	if err := os.WriteFile(file, []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := status.Code(faults.before(context.Background(), "Delete", volume(nil))); got != codes.Unavailable {
		t.Errorf("it ended with %v", got)
	}
	other := &Volume{ID: "pvc-2", Claim: "there/data"}
	if err := faults.before(context.Background(), "Delete", other); err != nil {
		t.Errorf("another claim's volume failed: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := faults.before(context.Background(), "Delete", volume(nil)); err != nil {
		t.Errorf("it failed after the fault was lifted: %v", err)
	}
}

func TestASlowCallsTimeCountsFromItsFirstTry(t *testing.T) {
	faults := faults{folder: t.TempDir()}
	slow := volume(map[string]string{"slowCreate": "300ms"})
	began := time.Now()
	for tries := 1; ; tries++ {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		err := faults.before(ctx, "Create", slow)
		cancel()
		if err == nil {
			if took := time.Since(began); tries < 2 || took < 300*time.Millisecond {
				t.Errorf("it took %v and %d tries", took, tries)
			}
			return
		}
		if status.Code(err) != codes.DeadlineExceeded || tries > 20 {
			t.Fatal(err)
		}
	}
}

func TestWhatIsNoParameterIsRefused(t *testing.T) {
	for _, class := range []map[string]string{
		{"slowDetatch": "1s"}, {"topology": "rack"}, {"capacity": "1Gi"}, {"pool": "p", "capacity": "much"},
	} {
		if _, err := classParameters(class); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v was taken: %v", class, err)
		}
	}
	good := map[string]string{"slowDetach": "1s", "csi.storage.k8s.io/pvc/name": "data"}
	if _, err := classParameters(good); err != nil {
		t.Error(err)
	}
}
