"""Compute the structural features of nodes and edges from their positions on the sphere."""

import numpy as np
from numpy.typing import NDArray


def positions(latitude: NDArray[np.float32], longitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute points on the unit sphere.

    Args:
        latitude: (node,) degrees.
        longitude: (node,) degrees.

    Returns:
        (node, 3) x, y, z.
    """
    phi, theta = _angles(latitude, longitude)
    return np.stack([np.cos(phi) * np.sin(theta), np.sin(phi) * np.sin(theta), np.cos(theta)], axis=-1)


def latitude_longitude(vertices: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return latitude and longitude in degrees, each (node,) float32, of (node, 3) points on the unit sphere."""
    x, y, z = vertices.T
    latitude = 90 - np.rad2deg(np.arccos(z))
    longitude = np.mod(np.rad2deg(np.arctan2(y, x)), 360)
    return latitude.astype(np.float32), longitude.astype(np.float32)


def node_features(latitude: NDArray[np.float32], longitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (node, 3) features: sine of the latitude, cosine and sine of the longitude."""
    phi, theta = _angles(latitude, longitude)
    return np.stack([np.cos(theta), np.cos(phi), np.sin(phi)], axis=-1)


def edge_features(
    sender_at: tuple[NDArray[np.float32], NDArray[np.float32]],
    receiver_at: tuple[NDArray[np.float32], NDArray[np.float32]],
    senders: NDArray[np.int32],
    receivers: NDArray[np.int32],
    longest: float | None = None,
) -> NDArray[np.float32]:
    """Compute the position of each sender relative to its receiver, after a rotation of the receiver to 0°N 0°E.

    Args:
        sender_at: latitude and longitude, each (sender,) degrees.
        receiver_at: latitude and longitude, each (receiver,) degrees.
        senders: (edge,) index of the sender.
        receivers: (edge,) index of the receiver.
        longest: length by which lengths are divided; None for that of the longest edge.

    Returns:
        (edge, 4) float32: length, x, y, z of sender minus receiver.
    """
    turns = _turns(*receiver_at)
    ahead = _turned(positions(*receiver_at), turns)
    offset = _turned(positions(*sender_at)[senders], turns[:, receivers]) - ahead[receivers]
    length = np.linalg.norm(offset, axis=-1, keepdims=True)
    scale = length.max() if longest is None else longest
    return (np.concatenate([length, offset], axis=-1) / scale).astype(np.float32)


def _turns(latitude: NDArray[np.float32], longitude: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (4, node) cosine and sine of the rotations about z by -longitude and about y by latitude."""
    phi, theta = (angle.astype(np.float64) for angle in _angles(latitude, longitude))
    tilt = np.pi / 2 - theta
    return np.stack([np.cos(phi), np.sin(phi), np.cos(tilt), np.sin(tilt)])


def _turned(points: NDArray[np.float32], turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points after their rotations, in float64."""
    x, y, z = points.astype(np.float64).T
    cos_phi, sin_phi, cos_tilt, sin_tilt = turns
    ahead, aside = x * cos_phi + y * sin_phi, y * cos_phi - x * sin_phi
    return np.stack([ahead * cos_tilt + z * sin_tilt, aside, z * cos_tilt - ahead * sin_tilt], axis=-1)


def _angles(
    latitude: NDArray[np.float32], longitude: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return azimuth and polar angle in radians, in float32 as the published features are."""
    return np.deg2rad(longitude, dtype=np.float32), np.deg2rad(90 - latitude, dtype=np.float32)
