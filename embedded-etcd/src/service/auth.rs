//! `etcdserverpb.Auth`: users, roles, tokens. Passwords are hashed and checked here, before the node is asked.

use tonic::{Request, Response, Status};

use super::Api;
use crate::auth::password::Hash;
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::auth_server::Auth;
use crate::refusal::Refusal;

#[tonic::async_trait]
impl Auth for Api {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| {
            node.administer(who, |auth| auth.enable())?;
            Ok(pb::AuthEnableResponse { header: Some(node.header().into()) })
        })
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| {
            node.administer(who, |auth| {
                auth.disable();
                Ok(())
            })?;
            Ok(pb::AuthDisableResponse { header: Some(node.header().into()) })
        })
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| {
            let (enabled, auth_revision) =
                node.administer(who, |auth| Ok((auth.is_enabled(), auth.revision())))?;
            Ok(pb::AuthStatusResponse { header: Some(node.header().into()), enabled, auth_revision })
        })
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        loop {
            let (hash, revision) = self.member.with(|node, _| node.auth.password_of(&name))?;
            if !hash.is_of(&password) {
                return Err(Refusal::AuthFailed.into());
            }
            let assigned = self.member.with(|node, now| {
                let token = node.assign_token(&name, revision, now)?;
                Some(pb::AuthenticateResponse { header: Some(node.header().into()), token })
            });
            // `None`: users changed while the password was checked, this user perhaps.
            if let Some(answer) = assigned {
                return Ok(Response::new(answer));
            }
        }
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        let wanted = request.get_ref();
        let without = wanted.options.is_some_and(|options| options.no_password);
        let hash = if without { None } else { Some(Hash::of(&wanted.password)?) };
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.user_add(&request.name, hash))?;
            Ok(pb::AuthUserAddResponse { header: Some(node.header().into()) })
        })
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            let roles = node.look_up(who, |auth, caller| auth.user_get(caller, &request.name))?;
            Ok(pb::AuthUserGetResponse { header: Some(node.header().into()), roles })
        })
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| {
            let users = node.administer(who, |auth| Ok(auth.users()))?;
            Ok(pb::AuthUserListResponse { header: Some(node.header().into()), users })
        })
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.user_delete(&request.name))?;
            Ok(pb::AuthUserDeleteResponse { header: Some(node.header().into()) })
        })
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        let hash = Hash::of(&request.get_ref().password)?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.user_change_password(&request.name, hash))?;
            Ok(pb::AuthUserChangePasswordResponse { header: Some(node.header().into()) })
        })
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.user_grant(&request.user, &request.role))?;
            Ok(pb::AuthUserGrantRoleResponse { header: Some(node.header().into()) })
        })
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.user_revoke(&request.name, &request.role))?;
            Ok(pb::AuthUserRevokeRoleResponse { header: Some(node.header().into()) })
        })
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.role_add(&request.name))?;
            Ok(pb::AuthRoleAddResponse { header: Some(node.header().into()) })
        })
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            let perm = node.look_up(who, |auth, caller| auth.role_get(caller, &request.role))?;
            Ok(pb::AuthRoleGetResponse { header: Some(node.header().into()), perm })
        })
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| {
            let roles = node.administer(who, |auth| Ok(auth.roles()))?;
            Ok(pb::AuthRoleListResponse { header: Some(node.header().into()), roles })
        })
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.role_delete(&request.role))?;
            Ok(pb::AuthRoleDeleteResponse { header: Some(node.header().into()) })
        })
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.role_grant(&request.name, request.perm))?;
            Ok(pb::AuthRoleGrantPermissionResponse { header: Some(node.header().into()) })
        })
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| {
            node.administer(who, |auth| auth.role_revoke(&request.role, &request.key, &request.range_end))?;
            Ok(pb::AuthRoleRevokePermissionResponse { header: Some(node.header().into()) })
        })
    }
}
