package mounter_test

import (
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestOtherSecrets: a retry with fresh secrets and tokens is the same call.
func TestOtherSecrets(t *testing.T) {
	r := newRig(t, nil)
	for _, value := range []string{"one", "two"} {
		stage, publish := r.stageRequest(), r.publishRequest()
		stage.Secrets, stage.Owner.Tokens = backends.NewSecrets(map[string]string{"key": value}), backends.NewSecret(value)
		publish.Secrets, publish.Owner.Tokens = stage.Secrets, stage.Owner.Tokens
		must(t, r.Stage(t.Context(), stage))
		must(t, r.Publish(t.Context(), publish))
	}
	if r.mountsAt(r.staging) != 1 || r.mountsAt(r.target) != 1 {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
}
