"""All custom resources, in the order in which they are documented."""

from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import Resource
from quarterdeck.kube.resources.prompt import Prompt
from quarterdeck.kube.resources.route import ModelRoute
from quarterdeck.kube.resources.team import Team

RESOURCES: tuple[type[Resource], ...] = (Model, ModelAdapter, ModelRoute, Team, Prompt)
