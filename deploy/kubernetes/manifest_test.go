// Package kubernetes checks the manifests of this folder against the types of
// Kubernetes. It is a module of its own: the gateway does not depend on them.
package kubernetes

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

var kinds = map[string]any{
	"v1 ConfigMap":                            core.ConfigMap{},
	"v1 Service":                              core.Service{},
	"apps/v1 Deployment":                      apps.Deployment{},
	"policy/v1 PodDisruptionBudget":           policy.PodDisruptionBudget{},
	"autoscaling/v2 HorizontalPodAutoscaler":  autoscaling.HorizontalPodAutoscaler{},
	"monitoring.coreos.com/v1 ServiceMonitor": monitoring.ServiceMonitor{},
}

// manifests decodes all files of this folder, strictly: an unknown field or a
// wrong type is an error.
func manifests(t *testing.T) (all []any) {
	t.Helper()
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no manifests", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			var kind struct{ APIVersion, Kind string }
			if err := yaml.Unmarshal(document, &kind); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			zero, known := kinds[kind.APIVersion+" "+kind.Kind]
			if !known {
				t.Fatalf("%s: unknown kind %q of %q", file, kind.Kind, kind.APIVersion)
			}
			object := reflect.New(reflect.TypeOf(zero)).Interface()
			if err := yaml.UnmarshalStrict(document, object); err != nil {
				t.Errorf("%s: %s: %v", file, kind.Kind, err)
			}
			all = append(all, object)
		}
	}
	return all
}

func TestManifestsDecodeStrictly(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	for _, m := range manifests(t) {
		seen[reflect.TypeOf(m).Elem()] = true
	}
	for name, zero := range kinds {
		if !seen[reflect.TypeOf(zero)] {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestStrictMeansStrict(t *testing.T) {
	if err := yaml.UnmarshalStrict([]byte("spec: {replica: 2}"), new(apps.Deployment)); err == nil {
		t.Error("an unknown field passes")
	}
}

// TestManifestsFitTogether follows the names from one manifest to the other.
func TestManifestsFitTogether(t *testing.T) {
	var pod core.PodTemplateSpec
	var services []core.Service
	var scaler autoscaling.HorizontalPodAutoscaler
	var monitor monitoring.ServiceMonitor
	var config core.ConfigMap
	for _, m := range manifests(t) {
		switch m := m.(type) {
		case *apps.Deployment:
			pod = m.Spec.Template
			for k, v := range m.Spec.Selector.MatchLabels {
				if pod.Labels[k] != v {
					t.Errorf("the deployment does not select its pods by %s", k)
				}
			}
		case *core.Service:
			services = append(services, *m)
		case *autoscaling.HorizontalPodAutoscaler:
			scaler = *m
		case *monitoring.ServiceMonitor:
			monitor = *m
		case *core.ConfigMap:
			config = *m
		}
	}
	c := pod.Spec.Containers[0]
	ports := map[string]bool{}
	for _, p := range c.Ports {
		ports[p.Name] = true
	}
	for _, p := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if !ports[p.HTTPGet.Port.StrVal] {
			t.Errorf("a probe asks port %q", p.HTTPGet.Port.StrVal)
		}
	}
	monitored := false
	for _, s := range services {
		for _, p := range s.Spec.Ports {
			if !ports[p.TargetPort.StrVal] {
				t.Errorf("service %s goes to port %q", s.Name, p.TargetPort.StrVal)
			}
			match := p.Name == monitor.Spec.Endpoints[0].Port
			for k, v := range monitor.Spec.Selector.MatchLabels {
				match = match && s.Labels[k] == v
			}
			monitored = monitored || match
		}
		for k, v := range s.Spec.Selector {
			if pod.Labels[k] != v {
				t.Errorf("service %s selects no pod", s.Name)
			}
		}
	}
	if !monitored {
		t.Error("the monitor finds no service")
	}
	if scaler.Spec.ScaleTargetRef.Name != "gateway" || *scaler.Spec.MinReplicas < 2 {
		t.Error("the autoscaler scales nothing, or to one")
	}
	if v := pod.Spec.Volumes[0]; v.ConfigMap.Name != config.Name || c.VolumeMounts[0].Name != v.Name {
		t.Error("the configuration is not mounted")
	}
	path := c.Args[len(c.Args)-1]
	if file := strings.TrimPrefix(path, c.VolumeMounts[0].MountPath+"/"); config.Data[file] == "" {
		t.Errorf("%s is not in the ConfigMap", path)
	}
	s := pod.Spec.SecurityContext
	if s.RunAsNonRoot == nil || !*s.RunAsNonRoot || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("the container is not locked down")
	}
}
