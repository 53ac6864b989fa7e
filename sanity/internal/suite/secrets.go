package suite

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter/mnt"
)

// canary is what nobody else writes.
func canary(t *T) string { return "canary-" + t.UniqueName() + "-canary" }

// withCanary are the run's secrets, and one more.
func withCanary(t *T, word string) map[string]string {
	secrets := map[string]string{"csikit-canary": word}
	maps.Copy(secrets, t.Config().Secrets)
	return secrets
}

// forms are a word as it is, and as programs encode what they print.
func forms(word string) []string {
	all := []string{word, hex.EncodeToString([]byte(word)), strings.ToUpper(hex.EncodeToString([]byte(word))), url.QueryEscape(word)}
	for shift := range 3 { // it may begin anywhere in what is encoded
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + word))
		text = strings.TrimRight(text, "=")
		if whole := text[min(len(text), []int{0, 2, 3}[shift]) : len(text)-1]; len(whole) > 6 {
			all = append(all, whole, strings.NewReplacer("+", "-", "/", "_").Replace(whole))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// has tells whether a text has a word, in any form.
func has(text, word string) bool {
	return slices.ContainsFunc(forms(word), func(f string) bool { return strings.Contains(text, f) })
}

// told are the keys of secrets that a text tells. What is short may be there by chance.
func told(text string, secrets map[string]string) (keys []string) {
	for _, k := range slices.Sorted(maps.Keys(secrets)) {
		if len(secrets[k]) >= 8 && has(text, secrets[k]) {
			keys = append(keys, k)
		}
	}
	return keys
}

func secretMessages(t *T) {
	word, token := canary(t), canary(t)
	secrets := withCanary(t, word)
	tells := func(what string, resp proto.Message, err error) {
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			text = t.Text(resp)
		}
		if has(text, word) {
			t.Failf("GEN-20 CV-43 CP-19", "%s tells a secret", what)
		}
		if has(text, token) {
			t.Warnf("PR-07", "%s tells a service account's token, or mount_flags, which may hold passwords", what)
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
	if t.HasNode {
		secretNode(t, secrets, token, tells)
	}
}

// secretNode sends secrets, tokens and passwords to the node, with good requests and
// bad ones.
func secretNode(t *T, secrets map[string]string, token string, tells func(string, proto.Message, error)) {
	v := t.NewVolume()
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		req := v.StageRequest()
		req.Secrets = secrets
		other := proto.Clone(req).(*csi.NodeStageVolumeRequest)
		other.VolumeId = noVolume
		flags := proto.Clone(req).(*csi.NodeStageVolumeRequest)
		password(flags.GetVolumeCapability(), token)
		for _, r := range []*csi.NodeStageVolumeRequest{flags, other, req} {
			resp, err := t.Try(r)
			tells("NodeStageVolume", resp, err)
		}
	}
	req := v.PublishRequest()
	req.Secrets = secrets
	req.VolumeContext = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": `{"vault":{"token":"` + token + `"}}`}
	maps.Copy(req.VolumeContext, v.VolumeContext)
	flags := proto.Clone(req).(*csi.NodePublishVolumeRequest)
	flags.TargetPath = v.PublishRequest().GetTargetPath()
	password(flags.GetVolumeCapability(), token)
	for _, r := range []*csi.NodePublishVolumeRequest{req, flags} {
		resp, err := t.Try(r)
		tells("NodePublishVolume", resp, err)
	}
}

// password is a mount flag as file systems over a network have it.
func password(c *csi.VolumeCapability, word string) {
	if m := c.GetMount(); m != nil {
		m.MountFlags = []string{"csikit_password=" + word}
	}
}

// secretLogs has the driver get all that it should not print, and reads what it did.
func secretLogs(t *T) {
	word, token := canary(t), canary(t)
	secrets := withCanary(t, word)
	t.Mode()
	useWith(t, secrets)
	if t.Has("CREATE_DELETE_SNAPSHOT") {
		req := t.SnapshotRequest(t.NewVolume().VolumeId)
		req.Secrets = secrets
		_, _ = t.Try(req) // what is logged is what counts
	}
	bad := t.CreateRequest()
	bad.Secrets, bad.VolumeCapabilities = secrets, []*csi.VolumeCapability{t.Cap(99)}
	_, _ = t.Try(bad) // as above
	if t.HasNode {
		secretNode(t, secrets, token, func(string, proto.Message, error) {})
	}
	log, err := t.Config().Logs()
	if err != nil {
		t.NotRun("the log: %v", err)
	}
	if keys := told(string(log), secrets); len(keys) > 0 {
		t.Failf("GEN-20 PR-14 PR-07", "the log has the values of the secrets %q, plain or encoded", keys)
	}
	if has(string(log), token) {
		t.Warnf("PR-07", "the log has a service account's token, or mount_flags, which may hold passwords")
	}
}

// secretCommands looks at the command lines of what the driver has started.
func secretCommands(t *T) {
	secrets := withCanary(t, canary(t))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, pid := range children(t.Config().PID) {
				b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
				if keys := told(string(b), secrets); err == nil && len(keys) > 0 {
					t.Failf("GEN-20 PR-07", "the command line of %q has the values of the secrets %q", strings.SplitN(string(b), "\x00", 2)[0], keys)
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	useWith(t, secrets)
	cancel()
	wg.Wait()
}

// secretFiles looks at the files beside the paths of a volume in use, and at those that
// the driver has open. What only root reads is worth a warning.
func secretFiles(t *T) {
	word := canary(t)
	useWith(t, withCanary(t, word))
	for _, path := range slices.Concat(filesBeside(t.Dir()), filesOpen(t.Config().PID)) {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil || !has(string(b), word) {
			continue
		}
		if info.Mode()&0o077 != 0 {
			t.Failf("GEN-20 PR-07", "%s, which %v may read, has a secret while a volume is in use", path, info.Mode())
		} else {
			t.Warnf("PR-07", "%s has a secret while a volume is in use", path)
		}
	}
}

// filesBeside are those below a directory, and not those in volumes.
func filesBeside(dir string) (files []string) {
	// An error of the walk is that of a directory in which nobody can look then.
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if is, merr := mnt.IsMountPoint(path); merr == nil && is && err == nil && e.IsDir() {
			return fs.SkipDir
		}
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	return files
}

// filesOpen are those that a process has open; none without a process.
func filesOpen(pid int) (files []string) {
	if pid == 0 {
		return nil
	}
	links, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*") // the pattern is good
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && filepath.IsAbs(to) && !strings.HasPrefix(to, "/dev/") && !strings.HasPrefix(to, "/proc/") {
			files = append(files, to)
		}
	}
	return files
}
