package suite

import (
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// parameterPair are two sets of parameters that differ in one key.
type parameterPair struct {
	was, is map[string]string
	key     string
}

// parameterPairs leave out each key that was given, and add one that nobody gave.
func parameterPairs(given map[string]string) []parameterPair {
	var all []parameterPair
	for _, k := range slices.Sorted(maps.Keys(given)) {
		less := maps.Clone(given)
		delete(less, k)
		all = append(all, parameterPair{given, less, k}, parameterPair{less, given, k})
	}
	const key = "csikit-parameter"
	with := func(value string) map[string]string {
		m := map[string]string{key: value}
		maps.Copy(m, given)
		return m
	}
	return append(all, parameterPair{with("1"), with("2"), key})
}

// otherParameters: both sets have to make a volume by themselves, or what is wrong is
// not that the name is taken.
func otherParameters(t *T) {
	t.Mode()
	tried := false
	for _, p := range parameterPairs(t.Config().Parameters) {
		first, fresh := withParameters(t, p.was), (*check.Volume)(nil)
		if first != nil {
			fresh = withParameters(t, p.is)
		}
		if fresh != nil {
			tried = true
			p.taken(t, first, fresh)
		}
	}
	if !tried {
		t.NotRun("the driver refuses parameters that it does not know, and of those that it is given none can be left out (--parameters k=v)")
	}
}

// withParameters makes a volume; nil if the driver refuses to.
func withParameters(t *T, parameters map[string]string) *check.Volume {
	req := t.CreateRequest()
	req.Parameters = parameters
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		return nil
	}
	return &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

// taken asks for the first volume's name with the parameters of the other one.
func (p *parameterPair) taken(t *T, first, fresh *check.Volume) {
	req := proto.Clone(first.Request).(*csi.CreateVolumeRequest)
	req.Parameters = p.is
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch code := codeOf(err); {
	case code == codes.AlreadyExists:
	case code != codes.OK:
		t.Failf("CV-36", "CreateVolume by a taken name, with another %s, that is good for a new volume: got %s, want ALREADY_EXISTS", p.key, check.Describe(err))
	case resp.GetVolume().GetVolumeId() != first.VolumeId:
		t.Failf("CV-36 CV-03", "CreateVolume by a taken name, with another %s: got OK, and another volume; want ALREADY_EXISTS", p.key)
	case p.shown(first, fresh):
		t.Failf("CV-36", "CreateVolume by a taken name, with another %s, which volume_context tells: got OK, want ALREADY_EXISTS", p.key)
	case p.denied(t, first):
		t.Failf("CV-36", "CreateVolume by a taken name, with another %s: got OK, and ValidateVolumeCapabilities does not confirm that parameter of the volume; want ALREADY_EXISTS", p.key)
	default:
		t.Warnf("CV-36", "CreateVolume by a taken name, with another %s, is OK: right only if that parameter makes no difference", p.key)
	}
}

// shown: volume_context has the parameter as it was given, of that volume alone which
// was made with it.
func (p *parameterPair) shown(first, fresh *check.Volume) bool {
	if value, ok := p.is[p.key]; ok {
		return fresh.VolumeContext[p.key] == value && first.VolumeContext[p.key] != value
	}
	value := p.was[p.key]
	return first.VolumeContext[p.key] == value && fresh.VolumeContext[p.key] != value
}

// denied: the driver says that the volume is of the parameters that it was made with,
// and that it is not of the others.
func (p *parameterPair) denied(t *T, v *check.Volume) bool {
	confirms := func(parameters map[string]string) bool {
		req := validateRequest(v)
		req.Parameters = parameters
		resp, err := check.Try[*csi.ValidateVolumeCapabilitiesResponse](t, req)
		return err != nil || resp.GetConfirmed() != nil
	}
	return confirms(p.was) && !confirms(p.is)
}
