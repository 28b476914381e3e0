package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gateway/internal/load"
)

// told runs promtool on files of deploy/prometheus.
func told(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = "../../deploy/prometheus"
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s (Debian package prometheus): %v\n%s", strings.Join(args, " "), err, text)
	}
}

func TestPrometheusLikesTheRules(t *testing.T) {
	told(t, "check", "config", "prometheus.yml")
	told(t, "check", "rules", "rules.yml")
	told(t, "test", "rules", "rules_test.yml")
}

var (
	alertName = regexp.MustCompile(`- alert: (\w+)`) // in rules.yml
	firing    = regexp.MustCompile(`(?m)^ +- alertname: (\w+)\n +eval_time: .*\n +exp_alerts:\n +- exp_labels: `)
)

// unfired are the alerts of rules that no case of tests expects to fire. What a
// case expects happens: promtool sees to that.
func unfired(rules, tests string) (names []string) {
	fires := map[string]bool{}
	for _, m := range firing.FindAllStringSubmatch(tests, -1) {
		fires[m[1]] = true
	}
	for _, m := range alertName.FindAllStringSubmatch(rules, -1) {
		if !fires[m[1]] {
			names = append(names, m[1])
		}
	}
	return names
}

func TestEachAlertFiresInATest(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile("../../deploy/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	rules, tests := read("rules.yml"), read("rules_test.yml")
	if names := unfired(rules, tests); names != nil {
		t.Errorf("%v never fire in rules_test.yml", names)
	}

	// A rule whose only case is missing, or expects nothing, would be found.
	alerts := alertName.FindAllStringSubmatch(rules, -1)
	if len(alerts) < 10 {
		t.Errorf("%d alerts", len(alerts))
	}
	for _, a := range alerts {
		renamed := strings.ReplaceAll(tests, "alertname: "+a[1]+"\n", "alertname: Other\n")
		silent := regexp.MustCompile(`(alertname: `+a[1]+`\n.*\n +exp_alerts:)\n`).ReplaceAllString(tests, "$1 []\n")
		for _, without := range []string{renamed, silent} {
			if names := unfired(rules, without); !slices.Equal(names, []string{a[1]}) {
				t.Errorf("without a case in which %s fires, %v are found", a[1], names)
			}
		}
	}
	if names := unfired(rules+"\n      - alert: GatewayNew\n", tests); !slices.Equal(names, []string{"GatewayNew"}) {
		t.Errorf("for a rule without a case %v are found", names)
	}
}

// everything is a gateway with everything switched on, one of whose routes has
// been used.
func everything(t *testing.T) *child {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key"))
	c := runs(t, fmt.Sprintf(`
[tls]
certificates = [{ cert = "%[2]s/a.pem", key = "%[2]s/a.key" }]
[redis]
url = "redis://%[1]s"
[cache]
redis = true
[upstream.app]
servers = ["%[1]s"]
[limit.api]
rate = "10/s"
[dependency.redis]
url = "redis://%[1]s"
[[route]]
upstream = "app"
limit = "api"
cache = true
compress = true
`, load.FreeAddress(t), dir))
	// A route that nobody has used has no series; an answer is counted when it
	// has been written.
	get(t, "http://"+c.address()+"/")
	c.until("the request is counted", func() bool {
		_, text := c.ask("GET", "/metrics")
		return strings.Contains(text, "\ngateway_http_requests_total{")
	})
	return c
}

// metricNames are the names that samples in the text may have.
func metricNames(t *testing.T, text string) map[string]bool {
	t.Helper()
	exist := map[string]bool{"up": true}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		exist[m[1]] = true
		if m[2] == "histogram" {
			exist[m[1]+"_bucket"], exist[m[1]+"_sum"], exist[m[1]+"_count"] = true, true, true
		}
	}
	if len(exist) < 40 {
		t.Fatalf("%d metrics", len(exist))
	}
	return exist
}

// TestBoardsAndRulesUseMetricsThatExist compares the names in what is deployed
// beside the gateway with those that a gateway offers.
func TestBoardsAndRulesUseMetricsThatExist(t *testing.T) {
	_, text := everything(t).ask("GET", "/metrics")
	exist := metricNames(t, text)
	names := regexp.MustCompile(`\b(gateway|process|go)_[a-z_]+\b`)
	for _, file := range []string{"prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/gateway.json"} {
		text, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", file)
		}
		found := names.FindAllString(string(text), -1)
		slices.Sort(found)
		for _, name := range slices.Compact(found) {
			if !exist[name] {
				t.Errorf("%s uses %s, which does not exist", file, name)
			}
		}
	}
}

func TestDeployedConfigurationsAreValid(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte("  config.toml: |\n"))
	if !found {
		t.Fatal("no configuration in the ConfigMap")
	}
	text, _, _ = bytes.Cut(text, []byte("\n---\n"))
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("\n    "), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "check", "--config", path); r.status != 0 {
		t.Errorf("the ConfigMap's configuration: %s%s", r.stdout, r.stderr)
	}
}
