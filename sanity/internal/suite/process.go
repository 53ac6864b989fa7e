package suite

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
)

// processChecks: H-09, H-10, H-21, H-22, H-23 and H-32: the driver as a process.
func processChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-09/socket", Title: "The endpoint is a UNIX socket that ends in .sock, with nothing beside it", Clauses: "PR-01 PR-02 PR-03 PR-04 PR-10", Run: socket},
		{ID: "H-09/connections", Title: "Fifty short connections are served, as kubelet makes them", Clauses: "PR-12 PR-05", Run: connections},
		{ID: "H-10/busy", Title: "Probe answers soon while the driver is busy", Clauses: "ID-14 ID-17", Needs: cv, Run: probeBusy},
		{ID: "H-21/volumes", Title: "Many volumes are listed in answers that a client takes", Clauses: "LV-02 LV-04", Needs: cv + " LIST_VOLUMES", Run: manyVolumes},
		{ID: "H-22/messages", Title: "Errors and answers do not tell secrets, tokens or mount_flags", Clauses: "GEN-20 GEN-21 CV-43 CP-19", Needs: cv, Run: secretMessages},
		{ID: "H-22/logs", Title: "The log does not tell secrets, tokens or mount_flags", Clauses: "GEN-20 GEN-21 PR-07 PR-14", Needs: node + " logs", Run: secretLogs},
		{ID: "H-22/command-lines", Title: "Command lines of what the driver starts do not tell secrets", Clauses: "GEN-20 PR-07", Needs: node + " pid", Run: secretCommands},
		{ID: "H-22/environment", Title: "The driver's own variables do not begin with CSI_", Clauses: "PR-11", Needs: "pid", Run: environment},
		{ID: "H-23/descriptors", Title: "Volumes that come and go leave no descriptor and no process", Clauses: "NU-02 NB-02 PR-12", Needs: node + " pid", Run: descriptors},
		{ID: "H-23/devices", Title: "A volume that is gone has left no mount and no device", Clauses: "NU-02 NB-02", Needs: node + " host", Run: devices},
		{ID: "H-32/identity", Title: "The controller's and the node's endpoint say the same of the plugin", Clauses: "GEN-01 ID-06", Needs: "node controller", Run: twoIdentities},
		{ID: "H-32/other-side", Title: "RPCs of the other side are UNIMPLEMENTED", Clauses: "GEN-02 GEN-03 PR-15", Needs: "node controller", Run: otherSide},
	}
}

func socket(t *T) {
	for _, target := range slices.Compact([]string{t.Config().Controller, t.Config().Node}) {
		path := csiclient.SocketPath(target)
		switch {
		case path == "":
			t.Warnf("PR-02", "the endpoint %s is no UNIX socket: it has to be secured otherwise", csiclient.Endpoint(target))
			continue
		case !strings.HasSuffix(path, ".sock"):
			t.Warnf("PR-04", "the endpoint %s does not end in .sock", path)
		}
		names, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			continue // it is not here
		}
		for _, n := range names {
			if !strings.HasSuffix(n.Name(), ".sock") && filepath.Join(filepath.Dir(path), n.Name()) != path && strings.Contains(n.Name(), filepath.Base(path)) {
				t.Failf("PR-10", "%s is beside the socket", n.Name())
			}
		}
	}
}

func connections(t *T) {
	for range 50 {
		back, err := t.Redial()
		if err != nil {
			t.Fatalf("PR-12", "%v", err)
		}
		_, err = t.Try(&csi.GetPluginInfoRequest{})
		back()
		if err != nil {
			t.Fatalf("PR-12", "GetPluginInfo over a new connection: %s", check.Describe(err))
		}
	}
}

func probeBusy(t *T) {
	t.Mode()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, _ = t.Send(ctx, t.CreateRequest()) // it is for being busy; what came of it is other checks'
		})
	}
	var slowest time.Duration
	for range 20 {
		start := time.Now()
		resp, err := check.Do[*csi.ProbeResponse](t, &csi.ProbeRequest{})
		slowest = max(slowest, time.Since(start))
		if err != nil && codeOf(err) != codes.Unavailable {
			t.Failf("ID-14", "Probe while 20 calls run: got %s, want OK", check.Describe(err))
		}
		if err == nil && resp.GetReady() != nil && !resp.GetReady().GetValue() {
			t.Failf("ID-17", "Probe while 20 calls run: ready is false")
		}
	}
	wg.Wait()
	cancel()
	if slowest > time.Second {
		t.Warnf("ID-14", "Probe took %v while 20 calls ran: livenessprobe waits 3 s, and kills the driver then", slowest)
	}
}

func manyVolumes(t *T) {
	t.Mode()
	const workers = 8
	end := time.Now().Add(min(10*time.Second, t.Config().CallTimeout))
	var mu sync.Mutex
	var ids []string
	t.Go(workers, func(int) {
		for range t.Config().Many / workers {
			if time.Now().After(end) {
				return
			}
			req := t.CreateRequest()
			req.CapacityRange = nil
			resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
			if err != nil {
				return // there may be no room for so many
			}
			mu.Lock()
			ids = append(ids, resp.GetVolume().GetVolumeId())
			mu.Unlock()
		}
	})
	resp := check.OK[*csi.ListVolumesResponse](t, "LV-01", &csi.ListVolumesRequest{})
	if n := proto.Size(resp); n > 4<<20 {
		t.Failf("LV-04", "an answer of ListVolumes has %d bytes: clients take 4 MiB", n)
	}
	all := volumeIDs(t)
	for _, id := range ids {
		if all[id] == nil {
			t.Fatalf("LV-02", "of %d volumes ListVolumes does not have %s", len(ids), id)
		}
	}
	t.Go(workers, func(i int) {
		for n := i; n < len(ids); n += workers {
			_, _ = t.Try(&csi.DeleteVolumeRequest{VolumeId: ids[n], Secrets: t.Config().Secrets}) // cleaning up says when it fails
		}
	})
}

// canary is what nobody else writes.
func canary(t *T) string { return "canary-" + t.UniqueName() + "-canary" }

func secretMessages(t *T) {
	word := canary(t)
	secrets := map[string]string{"csikit-canary": word}
	maps.Copy(secrets, t.Config().Secrets)
	tells := func(what string, resp proto.Message, err error) {
		if err != nil && strings.Contains(err.Error(), word) || err == nil && strings.Contains(t.Text(resp), word) {
			t.Failf("GEN-20 CV-43 CP-19", "%s tells a secret", what)
		}
	}
	t.Mode()
	for _, bad := range []func(*csi.CreateVolumeRequest){
		func(*csi.CreateVolumeRequest) {},
		func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{t.Cap(99)} },
		func(r *csi.CreateVolumeRequest) { r.Name = "" },
		func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromSnapshot(noSnapshot) },
	} {
		req := t.CreateRequest()
		req.Secrets = secrets
		bad(req)
		resp, err := t.Try(req)
		tells("CreateVolume", resp, err)
	}
	if !t.HasNode {
		return
	}
	v := t.NewVolume()
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		req := v.StageRequest()
		req.Secrets = secrets
		resp, err := t.Try(req)
		tells("NodeStageVolume", resp, err)
		req.VolumeId = noVolume
		resp, err = t.Try(req)
		tells("NodeStageVolume", resp, err)
	}
	req := v.PublishRequest()
	req.Secrets = secrets
	resp, err := t.Try(req)
	tells("NodePublishVolume", resp, err)
	tokens(t, v, word, tells)
}

// tokens: volume_context has tokens of service accounts, and mount_flags passwords.
func tokens(t *T, v *check.Volume, word string, tells func(string, proto.Message, error)) {
	req := v.PublishRequest()
	req.VolumeContext = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": `{"vault":{"token":"` + word + `"}}`}
	maps.Copy(req.VolumeContext, v.VolumeContext)
	resp, err := t.Try(req)
	tells("NodePublishVolume", resp, err)
	if t.Config().Block {
		return
	}
	flags := proto.Clone(req).(*csi.NodePublishVolumeRequest)
	flags.TargetPath = v.PublishRequest().GetTargetPath()
	flags.GetVolumeCapability().GetMount().MountFlags = []string{"csikit_password=" + word}
	resp, err = t.Try(flags)
	if err != nil && strings.Contains(err.Error(), word) {
		t.Warnf("GEN-21", "an error tells mount_flags, which may hold passwords")
		return
	}
	tells("NodePublishVolume", resp, err)
}

func secretLogs(t *T) {
	word := canary(t)
	secrets := map[string]string{"csikit-canary": word}
	maps.Copy(secrets, t.Config().Secrets)
	t.Mode()
	req := t.CreateRequest()
	req.Secrets = secrets
	v := t.NewVolume(func(r *csi.CreateVolumeRequest) { r.Secrets = secrets })
	tokens(t, v.ToNode(), word, func(string, proto.Message, error) {})
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		s := v.StageRequest()
		s.Secrets = secrets
		_, _ = t.Try(s) // what is logged is what counts
	}
	log, err := t.Config().Logs()
	if err != nil {
		t.NotRun("the log: %v", err)
	}
	if strings.Contains(string(log), word) {
		t.Failf("GEN-20 GEN-21 PR-14", "the log has a secret, a token, or mount_flags")
	}
	for k, s := range t.Config().Secrets {
		if len(s) >= 6 && strings.Contains(string(log), s) {
			t.Failf("GEN-20 PR-14", "the log has the value of the secret %q", k)
		}
	}
}

// children are the processes that a driver has started, and theirs.
func children(pid int) []int {
	var all []int
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		return nil
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // that thread is gone
		}
		for f := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(append(all, child), children(child)...)
			}
		}
	}
	return all
}

func secretCommands(t *T) {
	word := canary(t)
	secrets := map[string]string{"csikit-canary": word}
	maps.Copy(secrets, t.Config().Secrets)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, pid := range children(t.Config().PID) {
				b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
				for k, s := range secrets {
					if err == nil && len(s) >= 6 && strings.Contains(string(b), s) {
						t.Failf("GEN-20 PR-07", "a command line has the value of the secret %q: %s", k, strings.ReplaceAll(strings.SplitN(string(b), "\x00", 2)[0], "\x00", " "))
					}
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	useWith(t, secrets)
	cancel()
	wg.Wait()
}
