package csidriver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// certificate is a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "csi"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	o := &ServerOptions{TLS: credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})}
	lis, err := Listen("tcp://127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(t, NewServer(o, new(fakeServices).register), lis)
	addr := lis.Addr().String()
	if err := probe(t, connect(t, addr, credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}))); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := probe(t, connect(t, addr, credentials.NewTLS(&tls.Config{RootCAs: pool}))); status.Code(err) != codes.Unavailable {
		t.Errorf("without a client certificate: %v", err)
	}
	if err := probe(t, connect(t, addr, insecure.NewCredentials())); status.Code(err) != codes.Unavailable {
		t.Errorf("in clear text: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestTLSThatIsNone: credentials in clear text are not taken for TLS.
func TestTLSThatIsNone(t *testing.T) {
	s := NewServer(&ServerOptions{TLS: insecure.NewCredentials()}, new(fakeServices).register)
	if err := s.Run(t.Context(), "tcp://127.0.0.1:0"); err == nil {
		t.Error("credentials in clear text were accepted for TCP")
	}
}

func TestTLSIsNotForSockets(t *testing.T) {
	cert, _ := certificate(t)
	s := NewServer(&ServerOptions{TLS: credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})}, new(fakeServices).register)
	path := filepath.Join(t.TempDir(), "csi.sock")
	if err := s.Run(t.Context(), path); err == nil {
		t.Error("TLS on a Unix socket was accepted")
	}
	if n := names(t, filepath.Dir(path)); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
}
