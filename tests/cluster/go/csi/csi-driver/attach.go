package main

import (
	"context"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ControllerPublishVolume attaches a volume to a node, as a cloud does with its disks: a device
// appears, and no other node gets the volume, unless it was made for many.
func (c *controller) ControllerPublishVolume(ctx context.Context, request *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if err := given("node id", request.NodeId); err != nil {
		return nil, err
	}
	if request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "no capability is given")
	}
	release, err := c.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, err := c.store.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	place := slices.IndexFunc(c.nodes, func(node node) bool { return node.name == request.NodeId })
	if place < 0 {
		return nil, status.Errorf(codes.NotFound, "there is no node %s", request.NodeId)
	}
	if err := attachable(volume, c.nodes[place], request); err != nil {
		return nil, err
	}
	if err := c.faults.before(ctx, "Attach", volume); err != nil {
		return nil, err
	}
	used, err := attach(ctx, c.store.image("volumes", volume.ID))
	if err != nil {
		return nil, err
	}
	_, err = c.store.change(volume.ID, func(volume *Volume) error {
		if volume.Attached == nil {
			volume.Attached = map[string]bool{}
		}
		volume.Attached[request.NodeId] = request.Readonly
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": used}}, nil
}

// attachable says why a volume cannot be attached to a node.
func attachable(volume *Volume, node node, request *csi.ControllerPublishVolumeRequest) error {
	if err := volume.Parameters.allow(request.VolumeCapability); err != nil {
		return err
	}
	if volume.Node != "" && volume.Node != node.name || volume.Zone != "" && volume.Zone != node.zone {
		return status.Errorf(codes.FailedPrecondition, "%s lives on node %q in zone %q and cannot reach %s",
			volume.ID, volume.Node, volume.Zone, node.name)
	}
	if readOnly, there := volume.Attached[node.name]; there {
		if readOnly != request.Readonly {
			return status.Errorf(codes.AlreadyExists, "%s is attached with readonly=%v", volume.ID, readOnly)
		}
		return nil
	}
	for other := range volume.Attached {
		if !many(request.VolumeCapability) {
			return status.Errorf(codes.FailedPrecondition, "%s is attached to %s", volume.ID, other)
		}
	}
	return nil
}

// ControllerUnpublishVolume detaches a volume from a node, or from all if none is named.
func (c *controller) ControllerUnpublishVolume(ctx context.Context, request *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	release, err := c.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	done := &csi.ControllerUnpublishVolumeResponse{}
	volume, err := c.store.volume(request.VolumeId)
	if status.Code(err) == codes.NotFound {
		return done, nil
	}
	if err != nil {
		return nil, err
	}
	if _, there := volume.Attached[request.NodeId]; !there && request.NodeId != "" {
		return done, nil
	}
	if err := c.faults.before(ctx, "Detach", volume); err != nil {
		return nil, err
	}
	// Until this is written the volume stays attached, so that another try finds work to do.
	if request.NodeId == "" || len(volume.Attached) == 1 {
		if err := detach(ctx, c.store.image("volumes", volume.ID)); err != nil {
			return nil, err
		}
	}
	_, err = c.store.change(volume.ID, func(volume *Volume) error {
		if request.NodeId == "" {
			clear(volume.Attached)
		}
		delete(volume.Attached, request.NodeId)
		return nil
	})
	return done, err
}

// ControllerExpandVolume makes the file larger, and the device with it. What is on the device
// follows on the node.
func (c *controller) ControllerExpandVolume(ctx context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if request.CapacityRange == nil {
		return nil, status.Error(codes.InvalidArgument, "no capacity is given")
	}
	release, err := c.hold(request.VolumeId)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, err := c.store.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	wanted := *volume
	wanted.Capacity = max(volume.Capacity, (request.CapacityRange.RequiredBytes+4095)&^4095)
	if !fits(wanted.Capacity, request.CapacityRange) {
		return nil, status.Errorf(codes.OutOfRange, "%s has %d bytes already", volume.ID, volume.Capacity)
	}
	if wanted.Capacity > volume.Capacity {
		if err := c.faults.before(ctx, "Expand", volume); err != nil {
			return nil, err
		}
		more := wanted
		more.Capacity -= volume.Capacity
		pool, err := c.holdPool(&more)
		if err != nil {
			return nil, err
		}
		defer pool()
		if err := resized(ctx, c.store.image("volumes", volume.ID), wanted.Capacity); err != nil {
			return nil, err
		}
		volume, err = c.store.change(volume.ID, func(volume *Volume) error {
			volume.Capacity = wanted.Capacity
			volume.Grow = !volume.Block
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes:         volume.Capacity,
		NodeExpansionRequired: !volume.Block,
	}, nil
}
