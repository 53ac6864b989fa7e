package mounter_test

import (
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealPublishedOtherwise: a target that is published with other options is
// refused (ALREADY_EXISTS) and left as it is. One that shows another device:
// TestPublishedFromAnotherDevice.
func TestRealPublishedOtherwise(t *testing.T) {
	for name, change := range map[string]func(req *mounter.PublishRequest){
		"read-only":   func(req *mounter.PublishRequest) { req.ReadOnly = true },
		"mount flags": func(req *mounter.PublishRequest) { req.Capability.Flags = backends.NewFlags("noexec") },
		"access mode": func(req *mounter.PublishRequest) { req.Capability.Mode = backends.MultiNodeMultiWriter },
	} {
		t.Run(name, func(t *testing.T) {
			_, r := newRealVolume(t, 64*mib)
			r.stage("v", "ext4")
			r.publish("v", "t")
			id, err := mnt.ID(r.path("t"))
			must(t, err)
			req := r.publishReq("v", "t")
			change(&req)
			err = r.Publish(t.Context(), req)
			wantKind(t, err, backends.ErrIncompatible)
			if now, err := mnt.ID(r.path("t")); err != nil || now != id {
				t.Errorf("mount %d is now %d, %v", id, now, err)
			}
			r.unpublish("v", "t")
		})
	}
}

// TestRealFreshTokens: a publish again with other secrets, tokens and publish
// context changes no mount.
func TestRealFreshTokens(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "t")
	before, err := mnt.List()
	must(t, err)
	id, err := mnt.ID(r.path("t"))
	must(t, err)
	for _, token := range []string{"one", "two"} {
		req := r.publishReq("v", "t")
		req.Secrets = backends.NewSecrets(map[string]string{"token": token})
		req.Context = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": token}
		req.PublishContext = map[string]string{"session": token}
		must(t, r.Publish(t.Context(), req))
		st := r.stageReq("v", "ext4")
		st.Secrets, st.PublishContext = req.Secrets, req.PublishContext
		must(t, r.Stage(t.Context(), st))
	}
	after, err := mnt.List()
	must(t, err)
	if now, err := mnt.ID(r.path("t")); err != nil || now != id || len(after) != len(before) {
		t.Errorf("mount %d is now %d, %v; %d mounts, and %d before", id, now, err, len(after), len(before))
	}
	r.unpublish("v", "t")
	r.unstage("v")
	r.gone("v")
}
