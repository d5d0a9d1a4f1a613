package main

import (
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (c *controller) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := given("name", request.Name); err != nil {
		return nil, err
	}
	if err := given("source volume id", request.SourceVolumeId); err != nil {
		return nil, err
	}
	id := idOf(request.Name)
	release, err := c.hold("snapshot " + id)
	if err != nil {
		return nil, err
	}
	defer release()
	existing, err := c.store.snapshot(id)
	if err == nil {
		if existing.Volume != request.SourceVolumeId {
			return nil, status.Errorf(codes.AlreadyExists, "%s exists, of volume %s", request.Name, existing.Volume)
		}
		return &csi.CreateSnapshotResponse{Snapshot: answerSnapshot(existing)}, nil
	}
	if status.Code(err) != codes.NotFound {
		return nil, err
	}

	// The volume must stay as large as it is meanwhile.
	hold, err := c.hold(request.SourceVolumeId)
	if err != nil {
		return nil, err
	}
	defer hold()
	volume, err := c.store.volume(request.SourceVolumeId)
	if err != nil {
		return nil, err
	}
	if err := c.faults.before(ctx, "Snapshot", volume); err != nil {
		return nil, err
	}
	from, to := c.store.image("volumes", volume.ID), c.store.image("snapshots", id)
	if err := create(ctx, from, to, volume.Capacity); err != nil {
		return nil, err
	}
	snapshot := &Snapshot{
		ID:         id,
		Name:       request.Name,
		Volume:     volume.ID,
		Capacity:   volume.Capacity,
		Block:      volume.Block,
		FileSystem: volume.FileSystem,
		Created:    time.Now().Unix(),
	}
	if err := c.store.save("snapshots", id, snapshot); err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: answerSnapshot(snapshot)}, nil
}

func (c *controller) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := given("snapshot id", request.SnapshotId); err != nil {
		return nil, err
	}
	done := &csi.DeleteSnapshotResponse{}
	if _, err := c.store.snapshot(request.SnapshotId); err != nil {
		if status.Code(err) == codes.NotFound {
			return done, nil
		}
		return nil, err
	}
	return done, c.store.remove("snapshots", request.SnapshotId)
}

func (c *controller) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := c.store.snapshots()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(snapshot *Snapshot) bool {
		return request.SnapshotId != "" && request.SnapshotId != snapshot.ID ||
			request.SourceVolumeId != "" && request.SourceVolumeId != snapshot.Volume
	})
	page, next, err := pageOf(all, request.StartingToken, request.MaxEntries)
	if err != nil {
		return nil, err
	}
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, snapshot := range page {
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{
			Snapshot: answerSnapshot(snapshot),
		})
	}
	return response, nil
}

// answerSnapshot is a snapshot as the spec has it.
func answerSnapshot(snapshot *Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     snapshot.ID,
		SourceVolumeId: snapshot.Volume,
		SizeBytes:      snapshot.Capacity,
		CreationTime:   &timestamppb.Timestamp{Seconds: snapshot.Created},
		ReadyToUse:     true,
	}
}
