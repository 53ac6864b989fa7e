package csidriver

import (
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// mergeHealth checks what a backend says of one volume, and makes one entry of
// those that CSI takes for one: the same status for the same reason. clean takes the
// request's secrets out of a message.
func mergeHealth(id string, list []backends.Health, clean func(string) string) ([]backends.Health, error) {
	var merged []backends.Health
	for _, h := range list {
		if h.Status < backends.HealthDegraded || h.Status > backends.HealthDataLoss {
			return nil, badAnswer("volume %q has health status %d, which CSI does not know", id, h.Status)
		}
		if err := checkReason(h.Reason); err != nil {
			return nil, badAnswer("the health of volume %q: %w", id, err)
		}
		h.Message = shortMessage(clean(h.Message))
		i := slices.IndexFunc(merged, func(m backends.Health) bool { return m.Status == h.Status && m.Reason == h.Reason })
		if i < 0 {
			merged = append(merged, h)
			continue
		}
		merged[i].Message = joinMessages(merged[i].Message, h.Message)
	}
	return merged, nil
}

// mergeStorageHealth is mergeHealth for the storage behind volumes.
func mergeStorageHealth(list []backends.StorageHealth, clean func(string) string) ([]backends.StorageHealth, error) {
	var merged []backends.StorageHealth
	for _, h := range list {
		if h.Status < backends.StorageDegraded || h.Status > backends.StorageUnreachable {
			return nil, badAnswer("storage health status %d, which CSI does not know", h.Status)
		}
		if err := checkReason(h.Reason); err != nil {
			return nil, badAnswer("the storage health: %w", err)
		}
		if c := h.Capability; c != nil && (c.Mode < backends.SingleNodeWriter || c.Mode > backends.MultiNodeMultiWriter) {
			return nil, badAnswer("storage health %s concerns volumes of access mode %d, which CSI does not know", h.Reason, c.Mode)
		}
		h.Message = shortMessage(clean(h.Message))
		i := slices.IndexFunc(merged, func(m backends.StorageHealth) bool {
			return m.Status == h.Status && m.Reason == h.Reason && sameCapability(m.Capability, h.Capability)
		})
		if i < 0 {
			merged = append(merged, h)
			continue
		}
		merged[i].Message = joinMessages(merged[i].Message, h.Message)
	}
	return merged, nil
}

// sameCapability compares what is sent of a capability: mount flags are not, for
// they may hold secrets.
func sameCapability(a, b *backends.Capability) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Mode == b.Mode && a.Block == b.Block && a.FSType == b.FSType && a.Group == b.Group
}

func checkReason(reason string) error {
	if reason == "" || !fits(reason, maxString) {
		return badAnswer("reason %.200q is empty, has more than %d bytes, or is not UTF-8", reason, maxString)
	}
	return nil
}

// shortMessage fits a text for people into a string of CSI.
func shortMessage(s string) string {
	return clip(strings.ToValidUTF8(s, "?"), maxString-maxClipped)
}

func joinMessages(a, b string) string {
	switch {
	case a == "" || strings.Contains(b, a):
		return b
	case b == "" || strings.Contains(a, b):
		return a
	}
	return shortMessage(a + "; " + b)
}
