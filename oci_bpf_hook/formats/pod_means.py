"""Reads from a pod's spec what its containers have to use a token, and what Kubernetes refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..text.places import Fault, Place, Spot, fault
from .means import Means, Mount, means

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With hostUsers: false the API server refuses each of these (Kubernetes:
# pkg/apis/core/validation/validation.go, validateHostUsers).
_HOST = ("hostPID", "hostIPC", "hostNetwork")
# KEP-5607: https://kep.k8s.io/5607, alpha in 1.35.
_GATE = (
    ", unless the feature gate UserNamespacesHostNetworkSupport is on, which is alpha since "
    "Kubernetes 1.35"
)
# CRI-O's annotations, old and new (CRI-O: pkg/annotations), and their modes that make a namespace.
_CRI_O = ("io.kubernetes.cri-o.userns-mode", "userns-mode.crio.io")
_MODES = ("auto", "private")
_NOT_ROOT = "of its image, which isn't root (runAsNonRoot: true)"


class Pod:
    """The `spec` and the `annotations` of the pod at `place`; `spot` finds the first of places."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        annotations: Mapping[str, str],
        place: Place,
        spot: Callable[..., Spot],
    ) -> None:
        self._spec = spec
        self._annotations = annotations
        self._place = place
        self._spot = spot

    def refused(self) -> Iterator[Fault]:
        """A fault for each reason why the API server refuses the pod with hostUsers: false.

        A pod without that is told to set it, unless CRI-O gives it a user namespace.
        """
        if self._spec.get("hostUsers") is not False and self.by_cri_o():
            return
        for key in _HOST:
            if self._spec.get(key) is True:
                gate = _GATE if key == "hostNetwork" else ""
                yield fault(
                    self._spot((*self._place, "spec", key)),
                    f"Kubernetes refuses a pod with hostUsers: false and {key}: true{gate}; remove "
                    f"{key}, or run the program on the host instead",
                )
        for place, container in self._containers():
            if container.get("volumeDevices"):
                yield fault(
                    self._spot((*place, "volumeDevices")),
                    "Kubernetes refuses a pod with hostUsers: false and volumeDevices; mount a "
                    "filesystem instead (volumeMounts)",
                )

    def by_cri_o(self) -> Spot | None:
        """The place of the annotation by which CRI-O gives the pod a user namespace, or None."""
        for key in _CRI_O:
            if self._annotations.get(key, "").partition(":")[0] in _MODES:
                return self._spot((*self._place, "metadata", "annotations", key))
        return None

    def means(
        self, container: Mapping[str, Any], place: Place, here: Spot, *, engine: str | None
    ) -> Means:
        """The means of the `container` at `place`, whose own spot is `here`.

        `engine` is the only one that runs such a pod, or None.
        """
        security = _mapping(container.get("securityContext"))
        capabilities = _mapping(security.get("capabilities"))
        variables = [one for one in _list(container.get("env")) if isinstance(one, dict)]
        own = self._spec.get("hostUsers") is False
        return means(
            capabilities=_list(capabilities.get("add")),
            dropped=_list(capabilities.get("drop")),
            privileged=security.get("privileged") is True,
            spot=here,
            user=self._user(security),
            engine=engine,
            environment={str(one.get("name")): one.get("value") for one in variables},
            unread="envFrom" in container,
            mounts=self._mounts(container, place),
            cri_o_users=None if own else self.by_cri_o(),
        )

    def _user(self, security: Mapping[str, Any]) -> object:
        """The container's user; what the container says itself wins over what the pod says."""
        levels = (security, _mapping(self._spec.get("securityContext")))
        for given in levels:
            if given.get("runAsUser") is not None:
                return given["runAsUser"]
        for given in levels:
            if given.get("runAsNonRoot") is not None:
                return _NOT_ROOT if given["runAsNonRoot"] is True else None
        return None

    def _mounts(self, container: Mapping[str, Any], place: Place) -> Iterator[Mount]:
        paths = {
            str(one.get("name")): _mapping(one.get("hostPath")).get("path")
            for one in _list(self._spec.get("volumes"))
            if isinstance(one, dict)
        }
        for number, one in enumerate(_list(container.get("volumeMounts"))):
            path = one.get("mountPath") if isinstance(one, dict) else None
            if isinstance(path, str):
                source = paths.get(str(one.get("name")))
                yield Mount(
                    path=path,
                    shared=one.get("mountPropagation") == "Bidirectional",
                    source=source if isinstance(source, str) else None,
                    spot=self._spot((*place, "volumeMounts", number, "mountPath")),
                )

    def _containers(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        for key in ("initContainers", "containers"):
            for number, one in enumerate(_list(self._spec.get(key))):
                if isinstance(one, dict):
                    yield (*self._place, "spec", key, number), one


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
