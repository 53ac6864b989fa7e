package walk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// capabilities are what the driver says that it can do.
type capabilities struct {
	service    map[csi.PluginCapability_Service_Type]bool
	expansion  map[csi.PluginCapability_VolumeExpansion_Type]bool
	controller map[csi.ControllerServiceCapability_RPC_Type]bool
	group      map[csi.GroupControllerServiceCapability_RPC_Type]bool
	node       map[csi.NodeServiceCapability_RPC_Type]bool
}

// multiWriter: two pods of a node may write, and the newer modes are known.
func (c *capabilities) multiWriter() bool {
	return c.node[csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER] &&
		c.controller[csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
}

// ask asks Identity, and each service for its capabilities, and prints them.
func (w *Walk) ask(ctx context.Context) error {
	if err := w.askIdentity(ctx); err != nil {
		return err
	}
	w.can = &capabilities{
		service: map[csi.PluginCapability_Service_Type]bool{}, expansion: map[csi.PluginCapability_VolumeExpansion_Type]bool{},
		controller: map[csi.ControllerServiceCapability_RPC_Type]bool{}, group: map[csi.GroupControllerServiceCapability_RPC_Type]bool{},
		node: map[csi.NodeServiceCapability_RPC_Type]bool{},
	}
	return errors.Join(w.askPlugin(ctx), w.askController(ctx), w.askGroup(ctx), w.askNode(ctx))
}

// askIdentity asks at both endpoints, which must be one driver.
func (w *Walk) askIdentity(ctx context.Context) error {
	info, err := call(ctx, w, "GetPluginInfo", "", csi.NewIdentityClient(w.o.Controller).GetPluginInfo, &csi.GetPluginInfoRequest{})
	if err != nil {
		return err
	}
	w.See("%s %s", info.GetName(), info.GetVendorVersion())
	if w.o.Node == w.o.Controller {
		return nil
	}
	other, err := call(ctx, w, "GetPluginInfo", "at the node's endpoint", csi.NewIdentityClient(w.o.Node).GetPluginInfo, &csi.GetPluginInfoRequest{})
	if err != nil {
		return err
	}
	if other.GetName() != info.GetName() {
		return fmt.Errorf("the node's endpoint is of another driver: %s", other.GetName())
	}
	return nil
}

func (w *Walk) askPlugin(ctx context.Context) error {
	resp, err := call(ctx, w, "GetPluginCapabilities", "", csi.NewIdentityClient(w.o.Controller).GetPluginCapabilities, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return err
	}
	var names []string
	for _, c := range resp.GetCapabilities() {
		switch {
		case c.GetService() != nil:
			w.can.service[c.GetService().GetType()] = true
			names = append(names, c.GetService().GetType().String())
		case c.GetVolumeExpansion() != nil:
			w.can.expansion[c.GetVolumeExpansion().GetType()] = true
			names = append(names, "expansion "+c.GetVolumeExpansion().GetType().String())
		}
	}
	w.seeNames(names)
	if !w.can.service[csi.PluginCapability_Service_CONTROLLER_SERVICE] {
		return errors.New("the driver has no Controller service: there is no volume that could be walked")
	}
	return nil
}

func (w *Walk) askController(ctx context.Context) error {
	resp, err := call(ctx, w, "ControllerGetCapabilities", "", w.controller.ControllerGetCapabilities, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	var names []string
	for _, c := range resp.GetCapabilities() {
		w.can.controller[c.GetRpc().GetType()] = true
		names = append(names, c.GetRpc().GetType().String())
	}
	w.seeNames(names)
	if !w.can.controller[csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME] {
		return errors.New("the driver creates no volumes: there is none that could be walked")
	}
	return nil
}

func (w *Walk) askGroup(ctx context.Context) error {
	if !w.can.service[csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE] {
		return nil
	}
	resp, err := call(ctx, w, "GroupControllerGetCapabilities", "", w.groups.GroupControllerGetCapabilities, &csi.GroupControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	var names []string
	for _, c := range resp.GetCapabilities() {
		w.can.group[c.GetRpc().GetType()] = true
		names = append(names, c.GetRpc().GetType().String())
	}
	w.seeNames(names)
	return nil
}

func (w *Walk) askNode(ctx context.Context) error {
	resp, err := call(ctx, w, "NodeGetCapabilities", "", w.node.NodeGetCapabilities, &csi.NodeGetCapabilitiesRequest{})
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("there is no Node service at this endpoint, give the node's too: %w", err)
	}
	if err != nil {
		return err
	}
	var names []string
	for _, c := range resp.GetCapabilities() {
		w.can.node[c.GetRpc().GetType()] = true
		names = append(names, c.GetRpc().GetType().String())
	}
	w.seeNames(names)
	w.info, err = call(ctx, w, "NodeGetInfo", "", w.node.NodeGetInfo, &csi.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	w.See("node %s %v", w.info.GetNodeId(), w.info.GetAccessibleTopology().GetSegments())
	return nil
}

func (w *Walk) seeNames(names []string) {
	if len(names) == 0 {
		names = []string{"nothing"}
	}
	slices.Sort(names)
	w.See("%s", strings.Join(names, ", "))
}
