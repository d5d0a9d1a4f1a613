package main

import (
	"context"
	"strconv"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// driver is what all services share.
type driver struct {
	store  *store
	nodes  nodes
	faults faults
	mutex  sync.Mutex
	busy   map[string]bool
}

// hold keeps every other call away from an object; the caller of a second one tries again.
func (d *driver) hold(id string) (release func(), err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.busy[id] {
		return nil, status.Errorf(codes.Aborted, "another call for %s is under way", id)
	}
	d.busy[id] = true
	return func() {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		delete(d.busy, id)
	}, nil
}

type controller struct {
	csi.UnimplementedControllerServer
	*driver
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var all []*csi.ControllerServiceCapability
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		all = append(all, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: kind},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := given("volume id", request.VolumeId); err != nil {
		return nil, err
	}
	if len(request.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "no capability is given")
	}
	volume, err := c.store.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := volume.Parameters.allowAll(request.VolumeCapabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      request.VolumeContext,
			VolumeCapabilities: request.VolumeCapabilities,
			Parameters:         request.Parameters,
		},
	}, nil
}

func (c *controller) ListVolumes(_ context.Context, request *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := c.store.volumes()
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, request.StartingToken, request.MaxEntries)
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, volume := range page {
		entry := &csi.ListVolumesResponse_Entry{
			Volume: answer(volume),
			Status: &csi.ListVolumesResponse_VolumeStatus{},
		}
		for node := range volume.Attached {
			entry.Status.PublishedNodeIds = append(entry.Status.PublishedNodeIds, node)
		}
		response.Entries = append(response.Entries, entry)
	}
	return response, nil
}

// thin is the capacity of a pool without a limit: files are sparse.
const thin = 1 << 40

func (c *controller) GetCapacity(_ context.Context, request *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	class, err := classParameters(request.Parameters)
	if err != nil {
		return nil, err
	}
	if len(request.VolumeCapabilities) > 0 && class.allowAll(request.VolumeCapabilities) != nil {
		return &csi.GetCapacityResponse{}, nil
	}
	free, err := c.free(class)
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{AvailableCapacity: max(free, 0)}, nil
}

// free is what the class's pool still holds; less than nothing if its limit was other before.
func (c *controller) free(class parameters) (int64, error) {
	limit, err := class.limit()
	if err != nil || limit == 0 {
		return thin, err
	}
	all, err := c.store.volumes()
	if err != nil {
		return 0, err
	}
	for _, volume := range all {
		if volume.Parameters["pool"] == class["pool"] {
			limit -= volume.Capacity
		}
	}
	return limit, nil
}

// pageOf takes a page out of a list; a token is the place of the page's first entry.
func pageOf[T any](all []T, token string, most int32) (page []T, next string, err error) {
	first := 0
	if token != "" {
		first, err = strconv.Atoi(token)
		if err != nil || first < 0 || first > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "%q is no token of ours", token)
		}
	}
	page = all[first:]
	if most > 0 && int(most) < len(page) {
		return page[:most], strconv.Itoa(first + int(most)), nil
	}
	return page, "", nil
}

func given(what, value string) error {
	if value == "" {
		return status.Errorf(codes.InvalidArgument, "no %s is given", what)
	}
	return nil
}
