package check

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
)

// MandatoryID is the check that stands for what every plugin must have.
const MandatoryID = "H-11/mandatory"

// Missing is an RPC that every plugin must have, and this one has not.
type Missing struct{ Method, Clauses, Endpoint string }

// mandatory are RPCs without which nobody can ask what a driver can do. among are
// others of the service: when one of those is there the service is, and when none is
// the service is at another endpoint, which is no fault of the driver. Their requests
// are empty, and change nothing.
type mandatory struct {
	req     proto.Message
	clauses string
	among   []proto.Message
}

func mandatoryOf(node bool) []mandatory {
	if node {
		return []mandatory{{&csi.NodeGetCapabilitiesRequest{}, "NC-01 GEN-02",
			[]proto.Message{&csi.NodeGetInfoRequest{}, &csi.NodeGetVolumeStatsRequest{}, &csi.NodePublishVolumeRequest{}}}}
	}
	return []mandatory{{&csi.ControllerGetCapabilitiesRequest{}, "CC-01 GEN-02",
		[]proto.Message{&csi.ValidateVolumeCapabilitiesRequest{}, &csi.ListVolumesRequest{}, &csi.GetCapacityRequest{}}}}
}

// identity is at each endpoint, whatever else is.
func identity() []mandatory {
	return []mandatory{
		{&csi.GetPluginInfoRequest{}, "ID-01 GEN-01", nil},
		{&csi.GetPluginCapabilitiesRequest{}, "ID-05 GEN-01", nil},
		{&csi.ProbeRequest{}, "ID-14 GEN-01", nil},
	}
}

// LacksMandatory looks for the RPCs that every plugin must have. Nothing else of a run
// makes sense without one of them. Other errors than UNIMPLEMENTED are not its business.
func LacksMandatory(ctx context.Context, cfg *Config) (lacks []Missing, err error) {
	for _, at := range []struct {
		endpoint string
		rpcs     []mandatory
	}{
		{cfg.Controller, append(identity(), mandatoryOf(false)...)},
		{cfg.Node, append(identity(), mandatoryOf(true)...)},
	} {
		conn, derr := csiclient.Dial(at.endpoint)
		if derr != nil {
			return nil, derr
		}
		for _, m := range at.rpcs {
			lack := Missing{Name(m.req), m.clauses, csiclient.Endpoint(at.endpoint)}
			if !slices.Contains(lacks, lack) && !m.there(ctx, cfg, conn) {
				lacks = append(lacks, lack)
			}
		}
		err = errors.Join(err, conn.Close())
	}
	return lacks, err
}

func (m *mandatory) there(ctx context.Context, cfg *Config, conn *grpc.ClientConn) bool {
	if served(ctx, cfg, conn, m.req) {
		return true
	}
	return len(m.among) > 0 && !slices.ContainsFunc(m.among, func(req proto.Message) bool { return served(ctx, cfg, conn, req) })
}

func served(ctx context.Context, cfg *Config, conn *grpc.ClientConn, req proto.Message) bool {
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	m := MethodOf(req)
	return status.Code(conn.Invoke(ctx, Path(m), req, NewMessage(m.Output()))) != codes.Unimplemented
}

// Without are the results of a driver that lacks something mandatory: that fails, and
// nothing else can be run.
func Without(lacks []Missing, cfg *Config, checks []Check, live Listener) (results []Result) {
	var what, clauses []string
	for _, m := range lacks {
		what = append(what, m.Method+" is UNIMPLEMENTED at "+m.Endpoint)
		for c := range strings.FieldsSeq(m.Clauses) {
			if !slices.Contains(clauses, c) {
				clauses = append(clauses, c)
			}
		}
	}
	for _, c := range checks {
		r := Result{ID: c.ID, Title: c.Title, Clauses: c.ClauseIDs(), Verdict: NotRun, Message: "nothing can be asked without " + lacks[0].Method, Reproduce: cfg.Reproduce(c.ID)}
		switch {
		case c.ID == MandatoryID:
			r.Verdict, r.Broken, r.Message = Fail, clauses, strings.Join(what, "\n")
		case !Selected(cfg.Only, c.ID):
			continue
		}
		live.Begin(c.ID)
		live.End(r)
		results = append(results, r)
	}
	return results
}
