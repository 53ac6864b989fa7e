package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Facts are what a driver says of itself before the first check.
type Facts struct {
	Name, Version string
	caps          map[string]bool // as facts.has names them
	Node          *csi.NodeGetInfoResponse
	HasNode       bool // there is a Node service
	HasController bool
	missing       map[string]string // what is not here, and why
}

// Has tells whether the driver advertises something: a controller's capability by
// its name, "node:NAME", "plugin:NAME", "expansion:ONLINE", "group", "metadata";
// or whether there is something here: "controller", "node", "mount", "block",
// "host", "pid", "logs", "restart", "secrets", "mutable".
func (f *Facts) Has(what string) bool { return f.caps[what] }

// need says why a check cannot be run: the verdict, and what is missing.
func (f *Facts) need(needs string) (Verdict, string) {
	verdict, missing := Pass, []string(nil)
	for n := range strings.FieldsSeq(needs) {
		if slices.ContainsFunc(strings.Split(n, "|"), f.Has) {
			continue
		}
		if why, here := f.missing[n]; here {
			missing = append(missing, why)
			if verdict == Pass {
				verdict = NotRun
			}
			continue
		}
		verdict = NotApplicable
		missing = append(missing, "the driver does not advertise "+n)
	}
	return verdict, strings.Join(missing, "; ")
}

// discover asks the driver what it can do.
func discover(ctx context.Context, cfg *Config, controller, node *grpc.ClientConn) (*Facts, error) {
	f := &Facts{caps: map[string]bool{}, missing: map[string]string{}}
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	info, err := csi.NewIdentityClient(controller).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return nil, fmt.Errorf("GetPluginInfo: %w", err)
	}
	f.Name, f.Version = info.GetName(), info.GetVendorVersion()
	if err := f.plugin(ctx, controller); err != nil {
		return nil, err
	}
	for _, err := range []error{f.controller(ctx, controller), f.node(ctx, node), f.group(ctx, controller)} {
		if err != nil && status.Code(err) != codes.Unimplemented {
			return nil, err
		}
	}
	f.here(cfg)
	return f, nil
}

func (f *Facts) plugin(ctx context.Context, conn *grpc.ClientConn) error {
	caps, err := csi.NewIdentityClient(conn).GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("GetPluginCapabilities: %w", err)
	}
	for _, c := range caps.GetCapabilities() {
		if s := c.GetService(); s != nil {
			f.caps["plugin:"+s.GetType().String()] = true
		}
		if e := c.GetVolumeExpansion(); e != nil {
			f.caps["expansion:"+e.GetType().String()] = true
		}
	}
	f.caps["metadata"] = f.caps["plugin:SNAPSHOT_METADATA_SERVICE"]
	return nil
}

func (f *Facts) controller(ctx context.Context, conn *grpc.ClientConn) error {
	caps, err := csi.NewControllerClient(conn).ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	f.HasController = true
	for _, c := range caps.GetCapabilities() {
		f.caps[c.GetRpc().GetType().String()] = true
	}
	return nil
}

func (f *Facts) node(ctx context.Context, conn *grpc.ClientConn) error {
	caps, err := csi.NewNodeClient(conn).NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	f.HasNode = true
	for _, c := range caps.GetCapabilities() {
		f.caps["node:"+c.GetRpc().GetType().String()] = true
	}
	f.Node, err = csi.NewNodeClient(conn).NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	return err
}

func (f *Facts) group(ctx context.Context, conn *grpc.ClientConn) error {
	caps, err := csi.NewGroupControllerClient(conn).GroupControllerGetCapabilities(ctx, &csi.GroupControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	for _, c := range caps.GetCapabilities() {
		f.caps["group"] = f.caps["group"] || c.GetRpc().GetType() == csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
	}
	return nil
}

// here notes what the run has.
func (f *Facts) here(cfg *Config) {
	f.caps["controller"], f.caps["node"] = f.HasController, f.HasNode
	for what, is := range map[string]struct {
		there bool
		why   string
	}{
		"host":    {cfg.Host, "what the driver mounts is not to be seen here (it is in another mount namespace, or a mock)"},
		"pid":     {cfg.PID > 0, "the driver's process is not to be seen here"},
		"logs":    {cfg.Logs != nil, "nobody says where the driver's log is"},
		"restart": {cfg.Restart != nil, "nobody says how to restart the driver (--restart 'CMD')"},
		"secrets": {len(cfg.Secrets) > 0, "no secrets are given (--secrets FILE)"},
		"mutable": {len(cfg.MutableParameters) > 0, "no mutable parameters are given (--mutable-parameters k=v)"},
		"mount":   {!cfg.Block, "this run is of raw block volumes (--access mount)"},
		"block":   {cfg.Block, "this run is of mounted volumes (--access block)"},
	} {
		f.caps[what] = is.there
		if !is.there {
			f.missing[what] = is.why
		}
	}
}

// Capabilities lists what the driver advertises.
func (f *Facts) Capabilities() []string {
	var all []string
	for _, c := range slices.Sorted(maps.Keys(f.caps)) {
		if f.caps[c] && strings.ToUpper(c[max(0, strings.Index(c, ":")):]) == c[max(0, strings.Index(c, ":")):] {
			all = append(all, c)
		}
	}
	return all
}
