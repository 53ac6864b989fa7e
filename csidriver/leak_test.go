package csidriver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
)

// TestSecretsOfAnEarlierCaller: an operation's error goes to whoever joined it, or
// comes next, and its secrets are another's.
func TestSecretsOfAnEarlierCaller(t *testing.T) {
	const first, second = "canary-of-first", "canary-of-second"
	begun, release := make(chan struct{}), make(chan struct{})
	r := startRig(t, func(s *setup) {
		s.backend.hook = hookOn("CreateVolume", func(context.Context) error {
			close(begun)
			<-release
			return fmt.Errorf("%w: login as %s", backends.ErrNoSpace, first)
		})
	})
	told := make(chan error, 2)
	create := func(secret string) {
		q := createReq("v")
		q.Secrets = map[string]string{"key": secret}
		_, err := r.CreateVolume(t.Context(), q)
		told <- err
	}
	go create(first)
	<-begun
	go create(second)
	for r.driver.operations.Running()[0].Waiters < 2 {
		runtime.Gosched()
	}
	close(release)
	for range 2 {
		err := <-told
		wantCode(t, err, codes.ResourceExhausted, "login as")
		if strings.Contains(status.Convert(err).Message(), first) {
			t.Errorf("told %v", err)
		}
	}
	if text := r.log.String(); strings.Contains(text, first) {
		t.Errorf("logged %s", text)
	}
}

// TestAnswersOfText: what a backend says for people is not an error, and is
// cleaned and cut all the same.
func TestAnswersOfText(t *testing.T) {
	const secret = "canary-canary"
	say := "\xff login as " + secret + strings.Repeat(" x", 100)
	secrets := map[string]string{"key": secret}
	var i *ill
	r := startRig(t, func(s *setup) {
		withHealth(&i)(s)
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume != nil {
				return errors.Join(backends.ErrInvalid, errors.New(say))
			}
			return nil
		}
	})
	id := makeVolume(t, r, "v")
	i.health[id] = []backends.Health{degraded("A", say)}
	i.listed = []backends.VolumeHealth{{ID: id, Health: i.health[id]}}
	i.storage = []backends.StorageHealth{{Status: backends.StorageDegraded, Reason: "A", Message: say}}
	var texts []string
	valid, err := r.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{mountCap()}, Secrets: secrets,
	})
	wantCode(t, err, codes.OK)
	texts = append(texts, valid.GetMessage())
	one, err := r.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id, Secrets: secrets})
	wantCode(t, err, codes.OK)
	texts = append(texts, one.GetVolumeHealth().GetHealthStatuses()[0].GetMessage())
	all, err := r.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{Secrets: secrets})
	wantCode(t, err, codes.OK)
	texts = append(texts, all.GetEntries()[0].GetHealthStatuses()[0].GetMessage())
	storage, err := r.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{Secrets: secrets})
	wantCode(t, err, codes.OK)
	texts = append(texts, storage.GetBackendHealth()[0].GetMessage())
	for n, text := range texts {
		if strings.Contains(text, "canary") || !strings.Contains(text, "login as") || len(text) > maxString {
			t.Errorf("%d: %q", n, text)
		}
	}
}
