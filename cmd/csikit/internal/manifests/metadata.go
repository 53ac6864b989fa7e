package manifests

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// metadataPort is where external-snapshot-metadata answers backup programs.
const metadataPort = 50051

// metadataHealth is where it tells that it does.
const metadataHealth = 9810

// Certificates of external-snapshot-metadata in its container.
const metadataCerts = "/certificates"

// A Service's name is stricter than the names of other objects.
var serviceNames = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (w *writer) metadataName() string { return w.base + "-snapshot-metadata" }

func (w *writer) checkMetadata() (errs []error) {
	if w.o.MetadataTLS == "" {
		if w.o.MetadataCA != nil {
			errs = append(errs, errors.New("snapshot metadata: a CA, but no secret with a certificate"))
		}
		return errs
	}
	if !w.f.metadata() {
		errs = append(errs, errors.New("snapshot metadata: the driver does not say that it has any"))
	}
	if w.layout == distributed {
		errs = append(errs, errors.New("snapshot metadata: each node's driver knows its own snapshots, and a Service cannot tell which node to ask"))
	}
	if b, _ := pem.Decode(w.o.MetadataCA); b == nil || b.Type != "CERTIFICATE" {
		errs = append(errs, errors.New("snapshot metadata: the CA is no certificate in PEM"))
	}
	if n := w.metadataName(); !serviceNames.MatchString(n) {
		errs = append(errs, fmt.Errorf("snapshot metadata: %s is no name of a Service", n))
	}
	return errs
}

// snapshotMetadata answers backup programs which blocks of a snapshot hold data, or
// differ from another. It is no part of the API: they talk to it over TLS, with a
// token whose audience is the driver's name.
func (w *writer) snapshotMetadata() sidecar {
	const group = "snapshot.storage.k8s.io"
	s := sidecar{
		name: "csi-snapshot-metadata",
		args: []string{
			"--port=" + strconv.Itoa(metadataPort),
			"--tls-cert=" + metadataCerts + "/tls.crt", "--tls-key=" + metadataCerts + "/tls.key",
			"--http-endpoint=:" + strconv.Itoa(metadataHealth), "--disable-metrics",
		},
		mounts: list{object{{"name", "snapshot-metadata"}, {"mountPath", metadataCerts}, {"readOnly", true}}},
		cluster: []rule{
			{"cbt.storage.k8s.io", []string{"snapshotmetadataservices"}, []string{"get"}}, // for the audience: v1.1.0 does not look at its flag
			{"authentication.k8s.io", []string{"tokenreviews"}, []string{"create"}},
			{"authorization.k8s.io", []string{"subjectaccessreviews"}, []string{"create"}},
			{group, []string{"volumesnapshots", "volumesnapshotcontents"}, []string{"get"}},
			{group, []string{"volumesnapshotclasses"}, []string{"get", "list"}},
		},
		ready:      object{{"httpGet", object{{"path", "/health"}, {"port", metadataHealth}}}, {"periodSeconds", 10}, {"timeoutSeconds", probeSeconds}},
		everywhere: true,
	}
	if w.o.Secrets {
		s.cluster = append(s.cluster, secrets)
	}
	return s
}

// metadataVolume holds the certificate that the Service's name is in.
func (w *writer) metadataVolume() list {
	if w.o.MetadataTLS == "" {
		return nil
	}
	return list{object{{"name", "snapshot-metadata"}, {"secret", object{{"secretName", w.o.MetadataTLS}}}}}
}

// metadataService is where backup programs find the sidecar, and what they must know
// of it.
func (w *writer) metadataService() []object {
	if w.o.MetadataTLS == "" {
		return nil
	}
	name, half := w.metadataName(), "controller"
	if w.layout == together {
		half = "node"
	}
	return []object{
		{
			{"apiVersion", "v1"},
			{"kind", "Service"},
			{"metadata", w.meta(name, true)},
			{"spec", object{
				{"selector", w.labels(half)},
				{"ports", list{object{{"name", "snapshot-metadata"}, {"port", metadataPort}}}},
			}},
		},
		{
			{"apiVersion", "cbt.storage.k8s.io/v1beta1"},
			{"kind", "SnapshotMetadataService"},
			{"metadata", w.meta(w.f.Name, false)},
			{"spec", object{
				{"address", name + "." + w.o.Namespace + ":" + strconv.Itoa(metadataPort)},
				{"audience", w.f.Name},
				{"caCert", base64.StdEncoding.EncodeToString(w.o.MetadataCA)},
			}},
		},
	}
}
