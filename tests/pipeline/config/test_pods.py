"""What becomes of values on their way into a container, and which volumes a pod can have."""

import pytest
from kubernetes_rules import expand

from base.errors import UserError
from pipeline.config.pods import Mount, environment, escaped, volume_errors

DATA = Mount("claim", "fpn-data", "/data")


@pytest.mark.parametrize("text", ["a$$b", "$(HOME)/x", "$$(HOME)", "cost: 5$", "$", "plain", "$(", "$$$(NO)$"])
def test_kubernetes_hands_over_an_escaped_text_as_it_was(text: str) -> None:
    assert expand(escaped(text), {"HOME": "/root"}) == text


def test_kubernetes_alters_a_text_that_is_not_escaped() -> None:
    assert expand("a$$b $(HOME) $(NO)", {"HOME": "/root"}) == "a$b /root $(NO)"


def test_one_claim_may_be_at_two_paths_and_different_names_side_by_side() -> None:
    assert volume_errors([DATA, Mount("claim", "fpn-data", "/more"), Mount("secret", "keys", "/keys")]) == []


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (
            Mount("claim", "fpn.data", "/more"),
            "the claim 'fpn.data' can't be mounted: Kubeflow Pipelines names the volume after it",
        ),
        (Mount("claim", "x" * 64, "/more"), "at most 63"),
        (Mount("secret", "Keys", "/keys"), "the secret 'Keys' can't be mounted"),
        (Mount("secret", "fpn-data", "/keys"), "'fpn-data' names a claim and a secret, and a pod has one volume per name"),
        (Mount("claim", "gcs-scratch", "/more"), "Kubeflow Pipelines has a volume of this name in each pod"),
        (Mount("claim", "other", "/data/"), "/data is the place of 2 volumes"),
        (Mount("claim", "other", "/s3"), "/s3 is a place that Kubeflow Pipelines mounts a folder of its own at"),
        (Mount("claim", "other", "/data/."), "/data is the place of 2 volumes"),
        (Mount("claim", "other", "/x/../minio/sub"), "/minio/sub is a place that Kubeflow Pipelines mounts a folder"),
        (Mount("claim", "other", "//"), "'/' must be an absolute path other than /"),
        (Mount("claim", "other", "/a\nb"), "must be an absolute path other than /"),
        (Mount("claim", "other", "/a:b"), "'/a:b' must be an absolute path other than /, without a colon"),
    ],
)
def test_a_volume_that_kubernetes_would_refuse_is_told(mount: Mount, message: str) -> None:
    (error,) = volume_errors([DATA, mount])
    assert message in error


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_with_a_proxy_the_launcher_still_reaches_the_cluster(proxy: str) -> None:
    found = environment({proxy: "http://proxy:3128", "no_proxy": "store.example, .local"})
    hosts = expand(found["NO_PROXY"], {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).split(",")
    assert found["NO_PROXY"] == found["no_proxy"]
    assert hosts[:2] == ["store.example", ".local"]
    assert {".svc.cluster.local", ".kubeflow", "ml-pipeline", "metadata-grpc-service", "10.96.0.1"} <= set(hosts)


def test_a_proxy_from_a_secret_counts_and_no_proxy_changes_nothing() -> None:
    assert set(environment({}, ["HTTPS_PROXY"])) == {"NO_PROXY", "no_proxy"}
    assert environment({"A": "1$"}, ["TOKEN"]) == {"A": "1$$"}
    assert environment({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"})["NO_PROXY"] == "*"
    assert environment({"HTTPS_PROXY": "", "NO_PROXY": "x"}) == {"HTTPS_PROXY": "", "NO_PROXY": "x"}


def test_double_braces_are_refused_for_argo_fills_them_in() -> None:
    with pytest.raises(UserError, match=r"double braces can't be in a value on Kubeflow"):
        escaped("/data/{{workflow.name}}")
