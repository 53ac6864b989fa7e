package kubernetes

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// republish: kubelet publishes again on the same target, with a token that is newer
// when it has one, and the pod does not notice. What kubelet says is read on its way to
// the driver, which writes no token anywhere. The driver itself needs none: its
// CSIDriver is told so for the flow.
//
// kubelet takes a new token by itself after 80% of the old one's life, whose least is
// 10 minutes. It is made to sooner: a token that is to live longer is another one.
func republish(s *space) {
	t := tapped(s)
	s.republishing("a", 600, false)
	s.Cleanup(func() {
		s.setDriver(map[string]any{"requiresRepublish": false, "tokenRequests": []any{}, "serviceAccountTokenInSecrets": nil})
	})
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f")
	uid := s.get("{.metadata.uid}", "pod", "p")
	before := s.targets(uid)

	is := func(audience string, life int64, inSecrets bool) func(token) bool {
		return func(k token) bool {
			return k.audience == audience && k.inSecrets == inSecrets && k.claims.Expires-k.claims.Issued == life
		}
	}
	first := t.after(s, 0, "a token comes", is("a", 600, false))
	s.authentic(first) // now: it lives 10 minutes
	t.after(s, t.seen(), "it is published again", is("a", 600, false))

	s.republishing("a", 900, false)
	second := t.after(s, t.seen(), "a new token of the same audience comes", is("a", 900, false))
	s.authentic(second)
	if second.claims.ID == first.claims.ID || second.value == first.value || second.claims.Expires <= first.claims.Expires {
		s.Errorf("the second token is not a newer one: %+v after %+v", second.claims, first.claims)
	}
	s.republishing("b", 600, true)
	third := t.after(s, t.seen(), "a token of another audience comes, in secrets", is("b", 600, true))
	s.authentic(third)
	t.after(s, t.seen(), "it is published again", is("b", 600, true))

	for _, k := range []token{first, second, third} {
		if !slices.Equal(k.claims.Aud, []string{k.audience}) || k.claims.K8s.Namespace != s.ns || k.claims.K8s.Pod.UID != uid {
			s.Errorf("the token is not the pod's for %q: %+v", k.audience, k.claims)
		}
		s.nowhere(k.value[strings.LastIndexByte(k.value, '.')+1:]) // the signature, whatever was before it
	}
	s.published("a", t.seen())
	if after := s.targets(uid); len(before) != 1 || !slices.Equal(before, after) {
		s.Errorf("mounts %q, then %q", before, after)
	}
	s.want(s.restarts("p"), "0")
	s.want(s.sh("p", "cat /data/f"), "one")
}

// republishing has kubelet publish again and again, with a token.
func (s *space) republishing(audience string, seconds int, inSecrets bool) {
	s.Helper()
	s.setDriver(map[string]any{
		"requiresRepublish": true, "serviceAccountTokenInSecrets": inSecrets,
		"tokenRequests": []any{map[string]any{"audience": audience, "expirationSeconds": seconds}},
	})
}

// setDriver changes the driver's CSIDriver.
func (s *space) setDriver(spec map[string]any) {
	s.Helper()
	patch, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		s.Fatal(err)
	}
	kubectl(s.T, "patch", "csidriver", s.d.driver.name, "--type=merge", "-p", string(patch))
}

// targets are the mounts of a pod's volumes, each with its number: one that was
// unmounted meanwhile has another.
func (s *space) targets(uid string) (list []string) {
	s.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.Contains(f[4], "/pods/"+uid+"/volumes/kubernetes.io~csi/") {
			list = append(list, f[0]+" "+f[2]+" "+f[4])
		}
	}
	return list
}

// authentic: the apiserver takes the token for that audience, as that of the pod's
// account.
func (s *space) authentic(k token) {
	s.Helper()
	review := fmt.Sprintf(`{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: %q, audiences: [%s]}}`, k.value, k.audience)
	out, err := try(review, "create", "-f", "-", "-o", "jsonpath={.status.authenticated} {.status.user.username}")
	if err != nil {
		s.Fatal(err)
	}
	s.want(out, "true system:serviceaccount:"+s.ns+":default")
}

// published: the driver was called with so many tokens at least, and has refused none.
func (s *space) published(claim string, tokens int) {
	s.Helper()
	handle := s.handle(s.volume(claim))
	eventually(s.T, "the driver's log has the calls", func() error {
		calls, err := s.d.calls("NodePublishVolume", handle)
		for _, c := range calls {
			if c.code != "OK" {
				s.Fatalf("the driver refused: %s", c.line)
			}
		}
		if err == nil && len(calls) < tokens {
			err = fmt.Errorf("it has %d, and %d tokens came", len(calls), tokens)
		}
		return err
	})
}
