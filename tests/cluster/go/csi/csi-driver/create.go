package main

import (
	"context"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	zoneKey = Name + "/zone"
	nodeKey = Name + "/node"
)

func (c *controller) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := given("name", request.Name); err != nil {
		return nil, err
	}
	wanted, err := wantedVolume(request)
	if err != nil {
		return nil, err
	}
	release, err := c.hold(wanted.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	existing, err := c.store.volume(wanted.ID)
	if err == nil {
		if existing.Source != wanted.Source || existing.Block != wanted.Block ||
			!fits(existing.Capacity, request.CapacityRange) {
			return nil, status.Errorf(codes.AlreadyExists, "%s exists, and is another", request.Name)
		}
		return &csi.CreateVolumeResponse{Volume: answer(existing)}, nil
	}
	if status.Code(err) != codes.NotFound {
		return nil, err
	}

	source, err := c.source(wanted, request.CapacityRange)
	if err != nil {
		return nil, err
	}
	if err := c.place(wanted, request.AccessibilityRequirements); err != nil {
		return nil, err
	}
	if err := c.faults.before(ctx, "Create", wanted); err != nil {
		return nil, err
	}
	// Pools are counted by one call at a time, or two could both take what is left.
	pool, err := c.holdPool(wanted)
	if err != nil {
		return nil, err
	}
	defer pool()
	if err := create(ctx, source, c.store.image("volumes", wanted.ID), wanted.Capacity); err != nil {
		return nil, err
	}
	if err := c.store.save("volumes", wanted.ID, wanted); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: answer(wanted)}, nil
}

// wantedVolume is the volume as asked for, with the size that its file system needs at least.
func wantedVolume(request *csi.CreateVolumeRequest) (*Volume, error) {
	class, err := classParameters(request.Parameters)
	if err != nil {
		return nil, err
	}
	if err := class.allowAll(request.VolumeCapabilities); err != nil {
		return nil, err
	}
	volume := &Volume{
		ID:         idOf(request.Name),
		Name:       request.Name,
		Parameters: class,
		Attached:   map[string]bool{},
		Capacity:   max(request.CapacityRange.GetRequiredBytes(), mib),
	}
	if claim := request.Parameters[metadata+"pvc/name"]; claim != "" {
		volume.Claim = request.Parameters[metadata+"pvc/namespace"] + "/" + claim
	}
	for _, capability := range request.VolumeCapabilities {
		volume.Block = volume.Block || capability.GetBlock() != nil
		if kind := capability.GetMount().GetFsType(); kind != "" {
			volume.FileSystem = kind
		}
	}
	if volume.Block {
		volume.FileSystem = ""
	} else {
		if volume.FileSystem == "" {
			volume.FileSystem = "ext4"
		}
		volume.Capacity = max(volume.Capacity, leastOf[volume.FileSystem])
	}
	switch source := request.VolumeContentSource.GetType().(type) {
	case *csi.VolumeContentSource_Snapshot:
		volume.Source = "snapshot:" + source.Snapshot.GetSnapshotId()
	case *csi.VolumeContentSource_Volume:
		volume.Source = "volume:" + source.Volume.GetVolumeId()
	}
	// Whole sectors, or a loop device would be shorter than its file.
	volume.Capacity = (volume.Capacity + 4095) &^ 4095
	if !fits(volume.Capacity, request.CapacityRange) {
		return nil, status.Errorf(codes.OutOfRange, "a volume of this kind has %d bytes or more", volume.Capacity)
	}
	return volume, nil
}

func fits(capacity int64, asked *csi.CapacityRange) bool {
	return capacity >= asked.GetRequiredBytes() &&
		(asked.GetLimitBytes() == 0 || capacity <= asked.GetLimitBytes())
}

// source is the file that a volume begins with, or "" for one that begins empty. A volume is never
// smaller than its source.
func (c *controller) source(wanted *Volume, asked *csi.CapacityRange) (string, error) {
	kind, id := "", ""
	var size int64
	var block bool
	if from, ok := strings.CutPrefix(wanted.Source, "snapshot:"); ok {
		snapshot, err := c.store.snapshot(from)
		if err != nil {
			return "", err
		}
		kind, id, size, block = "snapshots", from, snapshot.Capacity, snapshot.Block
	} else if from, ok := strings.CutPrefix(wanted.Source, "volume:"); ok {
		volume, err := c.store.volume(from)
		if err != nil {
			return "", err
		}
		kind, id, size, block = "volumes", from, volume.Capacity, volume.Block
	} else {
		return "", nil
	}
	if block != wanted.Block {
		return "", status.Error(codes.InvalidArgument, "a source is block where the volume is not, or the other way round")
	}
	wanted.Capacity = max(wanted.Capacity, size)
	if !fits(wanted.Capacity, asked) {
		return "", status.Errorf(codes.OutOfRange, "the source has %d bytes", size)
	}
	wanted.Grow = !wanted.Block
	return c.store.image(kind, id), nil
}

// place decides where a volume lives, for classes whose volumes do not live everywhere.
func (c *controller) place(volume *Volume, asked *csi.TopologyRequirement) error {
	kind := volume.Parameters["topology"]
	if kind == "" || kind == "none" {
		return nil
	}
	candidates := append(asked.GetPreferred(), asked.GetRequisite()...)
	for _, node := range c.nodes {
		candidates = append(candidates, &csi.Topology{Segments: segments(node)})
	}
	if len(candidates) == 0 {
		return status.Error(codes.ResourceExhausted, "there is no node to live on")
	}
	first := candidates[0].Segments
	volume.Zone = first[zoneKey]
	if kind == "node" {
		volume.Node = first[nodeKey]
	}
	return nil
}

func segments(node node) map[string]string {
	return map[string]string{zoneKey: node.zone, nodeKey: node.name}
}

// holdPool fails if the pool has no room for the volume, and else keeps it until it is released.
func (c *controller) holdPool(wanted *Volume) (func(), error) {
	if wanted.Parameters["capacity"] == "" {
		return func() {}, nil
	}
	release, err := c.hold("pool " + wanted.Parameters["pool"])
	if err != nil {
		return nil, err
	}
	free, err := c.free(wanted.Parameters)
	if err == nil && free < wanted.Capacity {
		err = status.Errorf(codes.ResourceExhausted, "pool %s has %d bytes left, not %d",
			wanted.Parameters["pool"], free, wanted.Capacity)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (c *controller) DeleteVolume(ctx context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	release, err := c.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, err := c.store.volume(request.VolumeId)
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(volume.Attached) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is attached", volume.ID)
	}
	if err := c.faults.before(ctx, "Delete", volume); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, c.store.remove("volumes", volume.ID)
}

// answer is a volume as the spec has it.
func answer(volume *Volume) *csi.Volume {
	answer := &csi.Volume{VolumeId: volume.ID, CapacityBytes: volume.Capacity}
	if from, ok := strings.CutPrefix(volume.Source, "snapshot:"); ok {
		answer.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: from},
		}}
	} else if from, ok := strings.CutPrefix(volume.Source, "volume:"); ok {
		answer.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: from},
		}}
	}
	lives := map[string]string{}
	if volume.Zone != "" {
		lives[zoneKey] = volume.Zone
	}
	if volume.Node != "" {
		lives[nodeKey] = volume.Node
	}
	if len(lives) > 0 {
		answer.AccessibleTopology = []*csi.Topology{{Segments: lives}}
	}
	return answer
}
