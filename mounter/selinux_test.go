package mounter_test

import (
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestSELinuxLabel: a volume is published with the label with which it is staged, or
// with whatever label that is.
func TestSELinuxLabel(t *testing.T) {
	const c1, c2 = `context="system_u:object_r:container_file_t:s0:c15,c25"`, `context="system_u:object_r:container_file_t:s0:c15,c26"`
	for _, c := range []struct {
		stage, publish []string
		want           error
	}{
		{[]string{"noatime", c1}, []string{"noatime", c1}, nil},
		{[]string{"noatime", c1}, []string{c1}, nil},
		{[]string{"noatime", c1}, nil, nil},
		{[]string{c1}, []string{c2}, backends.ErrIncompatible},
		{nil, []string{c1}, backends.ErrIncompatible},
	} {
		r := newRig(t, nil)
		st := r.stageRequest()
		st.Capability.Flags = backends.NewFlags(c.stage...)
		must(t, r.Stage(t.Context(), st))
		pub := r.publishRequest()
		pub.Capability.Flags = backends.NewFlags(c.publish...)
		err := r.Publish(t.Context(), pub)
		if c.want == nil {
			must(t, err)
			r.unpublish()
		} else {
			wantKind(t, err, c.want)
		}
		r.unstage()
		r.clean()
	}
}
